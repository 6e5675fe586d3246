"""The formats that any network is exported to. Each is one file, which says all of it in one registration."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from l0prune.errors import ConfigError, nearest
from l0prune.support import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from l0prune.formats.example import Example

Opened = Callable[["Example"], "list[Tensor]"]
"""What was written, opened again: the tensors that it gives for an example."""
_FILES = ("huggingface", "onnx_file", "onnx_int8", "torch_export", "torch_int8", "torchscript", "weights")


@dataclass(frozen=True, kw_only=True)
class ModuleFormat:
    """A format of networks: what it holds, how it is written, and how its users open it."""

    name: str
    """As in `to=NAME`."""
    holds: str
    """What is written, in words."""
    write: "Callable[[Any, Example, Path], list[str]]"
    """Network in evaluation mode on the CPU, example, and a file's path or an empty folder -> notes for the user."""
    open: Callable[[Path, Any], Opened]
    """Runs what was written, by the code of its users; the network is given for formats that hold no code."""
    opened_by: str
    """Whose code that is, in words."""
    suffix: str = ""
    """Of the file; a folder has none."""
    free_batch: bool = False
    """Whether a program is written, which holds a number of samples unless it is told to leave that free."""
    tolerance: float = 1e-5
    """The largest relative difference between its outputs and the network's; of a lossy format the largest share of
    noise, by root mean squares."""
    lossy: bool = False
    """Whether its numbers are rounded, so that outputs have noise: a signal-to-noise ratio is stated."""
    calibrated: bool = False
    """Whether writing it takes `Example.calibration`."""
    refuses: Callable[[Any], str | None] = lambda _module: None
    """Why the format cannot hold a network, or None."""
    needs: Callable[[], None] = lambda: None
    """Raises a `ConfigError` where a package is missing."""


_FORMATS: Registry[str, ModuleFormat] = Registry("format", own=tuple(f"l0prune.formats.{file}" for file in _FILES))


def register_module_format(form: ModuleFormat, *, replace: bool = False) -> ModuleFormat:
    """Let `export(module, ..., to=NAME)` write a format.

    Args:
        form: The format.
        replace: Take the place of the format of that name.

    Raises:
        ConfigError: It is no format, or its name is taken.
    """
    if not isinstance(form, ModuleFormat):
        raise ConfigError("not a format", got=repr(form), expected="an instance of l0prune.formats.ModuleFormat")
    return _FORMATS.register(form.name, form, replace=replace)


def module_format(name: str) -> ModuleFormat:
    """The format of a name.

    Raises:
        ConfigError: There is none.
    """
    known = MODULE_FORMATS
    if name not in known:
        raise no_such_format(name, known)
    return known[name]


def no_such_format(name: str, known: Iterable[str]) -> ConfigError:
    """The error for the name of a format, where these are known: of any network, or of a plugin's."""
    names = list(known)
    return ConfigError("no such format", where=name, expected=", ".join(names), hint=nearest(name, names, or_all=False))


class _Known(Mapping[str, ModuleFormat]):
    """The formats by name. They are loaded at first use, which takes torch."""

    def __getitem__(self, name: str) -> ModuleFormat:
        _FORMATS.load()
        return _FORMATS[name]

    def __iter__(self) -> Iterator[str]:
        _FORMATS.load()
        return iter(sorted(_FORMATS))

    def __len__(self) -> int:
        return sum(1 for _ in self)


MODULE_FORMATS: Mapping[str, ModuleFormat] = _Known()
"""The formats that `export(module, ...)` writes, by name."""
