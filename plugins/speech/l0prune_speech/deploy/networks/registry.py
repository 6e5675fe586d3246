"""The forms of networks with a class of their own. Each is one file, which says all of it in one registration."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from l0prune import ConfigError, ExportFormat, nearest
from l0prune.support import Registry

if TYPE_CHECKING:
    from l0prune_speech.deploy.calibration import Calibration
    from l0prune_speech.families import SpeechNetwork

_FILES = ("ctranslate2_model", "huggingface", "onnx_int8", "onnx_model", "torch_export")


@dataclass(frozen=True, kw_only=True)
class NetworkForm:
    """A form that networks are exported to."""

    name: str
    """As in `--to NAME`."""
    holds: str
    """What is written, and what it can and cannot hold, in words."""
    write: "Callable[[SpeechNetwork, Path], tuple[str, ...]]"
    """A network and an empty folder -> notes for the user."""
    compare: "Callable[[SpeechNetwork, Path], float]"
    """Opens what was written as its users would: the largest relative difference of its outputs from the network's."""
    opened_by: str
    """Whose code that is, in words."""
    tolerance: float = 1e-5
    """The largest relative difference that is let pass."""
    refuses: "Callable[[SpeechNetwork], str | None]" = lambda _network: None
    """Why the form cannot hold a network, or None."""
    needs: Callable[[], None] = lambda: None
    """Raises a `ConfigError` where a package is missing."""
    lossy: "Lossy | None" = None
    """For numbers that are rounded to eight bits, in place of `write` and `compare`."""


@dataclass(frozen=True, kw_only=True)
class Lossy:
    """How a form in int8 is written and compared: on audio."""

    write: "Callable[[SpeechNetwork, Path, Calibration], tuple[str, ...]]"
    """A network, an empty folder and audio -> notes for the user."""
    noise: "Callable[[SpeechNetwork, Path, Calibration], float]"
    """The largest share that noise has of its outputs, by root mean squares, on audio that was held out."""
    calibrated: bool
    """Whether scales are found on the audio."""


_FORMS: Registry[str, NetworkForm] = Registry(
    "form", own=tuple(f"l0prune_speech.deploy.networks.{file}" for file in _FILES)
)


def register_form(form: NetworkForm) -> NetworkForm:
    """Let `l0prune export --to NAME` write a form of networks with a class of their own.

    Raises:
        ConfigError: Its name is taken.
    """
    return _FORMS.register(form.name, form)


def forms() -> Mapping[str, NetworkForm]:
    """Every form by name."""
    _FORMS.load()
    return dict(sorted(_FORMS.items()))


def form_named(name: str) -> NetworkForm:
    """The form of a name.

    Raises:
        ConfigError: There is none.
    """
    known = forms()
    if name not in known:
        hint = nearest(name, known)
        expected = ", ".join(known)
        raise ConfigError(f"{name} cannot hold a network with a class of its own", expected=expected, hint=hint)
    return known[name]


class _Written(Mapping[str, ExportFormat]):
    """What the forms hold, by name. Loads them at first use: that takes torch."""

    def __getitem__(self, name: str) -> ExportFormat:
        return ExportFormat(holds=forms()[name].holds)

    def __iter__(self) -> Iterator[str]:
        return iter(forms())

    def __len__(self) -> int:
        return len(forms())


NETWORK_FORMATS: Mapping[str, ExportFormat] = _Written()
"""The forms that networks with a class of their own are exported to, in words, by name; all are folders."""
