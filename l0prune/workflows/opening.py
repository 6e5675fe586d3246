"""Runs that no plugin opens, or whose plugin does not do what is asked: their network, and inputs that it takes."""

import warnings
from collections.abc import Callable
from os.path import isfile  # Unlike Path.is_file, for any name: it may be longer than a path's.
from pathlib import Path

from torch import Tensor, nn

from l0prune.errors import ConfigError, L0PruneError
from l0prune.plugin import Benchable, get_plugin
from l0prune.storage import DESCRIPTION, PROBE, build_dense, load, read_description, read_probe

_SECONDS = 1.0
"""Length of the input that a plugin makes, where there is none beside the network."""


def open_run(source: str | Path, build: Callable[[], nn.Module] | None = None) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The network of a run, and example inputs: those that were kept when it was saved.

    Args:
        source: A run directory, or a folder of `save`.
        build: Makes the dense network; a run of an installed plugin needs none.

    Returns:
        The network in evaluation mode on the CPU, and its positional arguments; none where none were kept.

    Raises:
        L0PruneError: Nothing tells how to build the dense network, or a file is missing or damaged.
    """
    folder = Path(source)
    description = read_description(folder)
    if build is None and not description.get("plugin"):
        build_dense(description, folder)  # Says what is missing.
    with warnings.catch_warnings():
        # What was saved before there were checksums; verify says it.
        warnings.simplefilter("ignore")
        network = load(folder, build)
    if isfile(folder / PROBE):
        return network, read_probe(folder / PROBE).inputs
    plugin = get_plugin(str(description["plugin"])) if description.get("plugin") else None
    return network, tuple(plugin.load(_SECONDS, 1).inputs) if isinstance(plugin, Benchable) else ()


def is_own_run(source: str | Path) -> bool:
    """Whether a source is a run whose plugin measures nothing, or that names none.

    Raises:
        L0PruneError: Its plugin is missing or broken.
    """
    if not isfile(Path(source) / DESCRIPTION):
        return False
    plugin = read_description(Path(source)).get("plugin")
    return not plugin or not isinstance(get_plugin(str(plugin)), Benchable)


def check_scored(source: str) -> None:
    """Raise a `ConfigError` for a run that no plugin has scores for."""
    if not isfile(Path(source) / DESCRIPTION) or read_description(Path(source)).get("plugin"):
        return
    raise ConfigError(
        "no plugin knows scores for this run",
        where=source,
        expected="a run of a plugin that evaluates",
        hint="score it in your own code, on what l0prune.load(folder, build) opens",
    )


def example_missing(source: str | Path) -> L0PruneError:
    """The error for a run beside which no inputs were kept."""
    hint = "in Python: l0prune.export(network, example_inputs, ...) and l0prune.measure({...}, example_inputs)"
    return ConfigError("no example inputs were kept with this run", where=source, hint=hint)
