"""Networks into other stacks' formats: a module as it is, a run through the plugin that knows it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from os.path import isfile
from pathlib import Path
from typing import Any

from torch import nn

from l0prune.errors import ConfigError, RunError
from l0prune.formats import MODULE_FORMATS, ModuleFormat, export_module, module_format, no_such_format
from l0prune.plugin import CalibratedExporter, Export, Exporter, ExportFormat, FormatsBySource, get_plugin
from l0prune.storage import DESCRIPTION, read_description
from l0prune.support import check_inside, known_arguments
from l0prune.workflows.opening import example_missing, open_run


@known_arguments
def export(
    source: nn.Module | str | Path,
    example_inputs: Any = None,
    *,
    to: str,
    out: str | Path | None = None,
    plugin: str | None = None,
    build: Callable[[], nn.Module] | None = None,
    free: Mapping[str, Sequence[int]] | None = None,
    calibration: Iterable[Any] | None = None,
) -> Export:
    """Write a network in another stack's format.

        l0prune.export(smaller, example_inputs, to="onnx", out="smaller.onnx")
        l0prune.export("runs/base", to="huggingface")

    Args:
        source: A network, pruned or not; or a run directory, or what the plugin takes as a teacher.
        example_inputs: For a network: a tensor; a tuple or list of positional arguments; or a mapping of keyword
            arguments. It is compared on them.
        to: The format's name. For a network: "onnx", "torch.export", "torchscript", "safetensors" or "huggingface"; in
            int8 "onnx-int8", "onnx-int8-dynamic" or "torch.export-int8".
        out: The file or folder to make; for a run by default one in its `exports/`.
        plugin: For a run or a teacher: the plugin's name; a run directory knows its own.
        build: For a run that names no plugin: makes the dense network.
        free: For a network as a program: by argument the dimensions whose sizes stay free, {"input_ids": (0, 1)}.
            By default that of the batch does, where all tensors have it and the network allows it.
        calibration: For "onnx-int8" and "torch.export-int8". Of a network: batches of inputs, each like
            `example_inputs`. Of a plugin's run or teacher: files or folders of data; the plugin chooses where none are
            given.

    Returns:
        Where it stands and how far its outputs are from the network's.

    Raises:
        L0PruneError: The source cannot be read, the format is unknown or cannot hold the network, a package is missing,
            the place is taken, or what was written behaves otherwise; nothing is left at `out` then.
    """
    if isinstance(source, nn.Module):
        if plugin is not None or build is not None:
            given = f"plugin={plugin!r}" if build is None else "build"
            raise ConfigError("a network needs no plugin to be exported", got=given)
        if out is None:
            raise ConfigError("where to?", where=type(source).__name__, expected="out=PATH")
        return export_module(source, example_inputs, to=to, out=Path(out), free=free, calibration=calibration)
    if not isinstance(source, str | Path):
        hint = "what finalize() or prune() returns is one"
        raise ConfigError(
            "nothing to export", got=type(source).__name__, expected="a torch.nn.Module or a run", hint=hint
        )
    if is_run(source) and _any_network(source, build):
        network, inputs = open_run(source, build)
        given = inputs if example_inputs is None else example_inputs
        if isinstance(given, tuple) and not given:
            raise example_missing(source)
        place = Path(out) if out else _place(Path(source), to, module_format(to).suffix)
        written = export_module(network, given, to=to, out=place, free=free, calibration=calibration)
        return replace(written, source=str(source))
    if example_inputs is not None or free is not None:
        given = "example_inputs" if example_inputs is not None else "free"
        raise ConfigError("the plugin of a run has its own", where=source, got=given, hint="they go with a network")
    return _by_plugin(source, to, out, plugin, None if calibration is None else [str(path) for path in calibration])


def _by_plugin(
    source: str | Path, to: str, out: str | Path | None, plugin: str | None, calibration: Sequence[str] | None
) -> Export:
    """Export a run or a teacher through the plugin that knows it."""
    folder = Path(source)
    if is_run(folder):
        plugin = read_description(folder).get("plugin") or plugin
    elif isfile(folder / "config.toml"):
        raise RunError("the run has no model yet", where=source, hint="finish it with --resume")
    if plugin is None:
        raise ConfigError("not a run directory", where=source, hint="name the plugin that can read it")
    chosen = get_plugin(plugin)
    if not isinstance(chosen, Exporter):
        raise ConfigError("plugin exports nothing", where=plugin)
    formats = chosen.formats_of(str(source)) if isinstance(chosen, FormatsBySource) else chosen.formats
    if to not in formats:
        if to in chosen.formats:
            raise ConfigError(f"{to} cannot hold this network", where=source, expected=", ".join(formats))
        raise no_such_format(to, formats)
    if out is None:
        if not is_run(folder):
            hint = "only a run has a folder for its exports, and there is no run at this place"
            raise ConfigError("where to?", where=source, expected="--out PATH", hint=hint)
        out = _place(folder, to, formats[to].suffix)
    if calibration is None:
        return chosen.export(str(source), to, Path(out))
    if not isinstance(chosen, CalibratedExporter):
        raise ConfigError("plugin takes no calibration", where=plugin)
    return chosen.export_calibrated(str(source), to, Path(out), calibration)


def formats_of_run(source: str | Path) -> Mapping[str, ExportFormat] | Mapping[str, ModuleFormat]:
    """The formats that a run can be written in, by name.

    Raises:
        L0PruneError: Its plugin is missing or broken.
    """
    plugin = read_description(Path(source)).get("plugin")
    chosen = get_plugin(str(plugin)) if plugin else None
    if not isinstance(chosen, Exporter):
        return MODULE_FORMATS
    return chosen.formats_of(str(source)) if isinstance(chosen, FormatsBySource) else chosen.formats


def _any_network(folder: str | Path, build: Callable[[], nn.Module] | None) -> bool:
    """Whether a run is exported as any network is: its plugin has no formats, or it names none."""
    plugin = read_description(Path(folder)).get("plugin")
    return build is not None or not plugin or not isinstance(get_plugin(str(plugin)), Exporter)


def is_run(source: str | Path) -> bool:
    """Whether a folder holds a network that was saved."""
    return isfile(Path(source) / DESCRIPTION)


def _place(folder: Path, to: str, suffix: str) -> Path:
    """Where an export of a run is made by default."""
    place = folder / "exports" / f"{to}{suffix}"
    check_inside(place, folder)
    return place
