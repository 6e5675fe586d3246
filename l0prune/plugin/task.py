"""The plugin seam: what a plugin gives the pipeline, and how plugins are found.

A plugin is a class registered under the entry-point group `l0prune.plugins`. Its `prepare` returns a `Task`: the dense
network, its prune groups, an objective and data. Nothing else is needed to compress it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from l0prune.config import RunConfig
from l0prune.errors import PluginError, nearest

# A network is opened without the training code: what a task is made of matters to type checkers alone.
if TYPE_CHECKING:
    from torch import nn

    from l0prune.groups import PruneGroup
    from l0prune.measuring.variants import Contender, Load
    from l0prune.plugin.scores import Evaluation, EvaluationSettings, EvaluationTask
    from l0prune.removal.plan import RemovalPlan
    from l0prune.training.objective import Objective

ENTRY_POINT_GROUP = "l0prune.plugins"


@dataclass(frozen=True, kw_only=True)
class Task:
    """One network to compress, with all that it takes."""

    objective: "Objective"
    """Its `student` is the dense network to prune, on the run's device."""
    groups: "Sequence[PruneGroup]"
    """Prune groups of the student."""
    batches: Callable[[int], Iterator[Any]]
    """Endless batches for the objective, from batch number `position` on: the same ones at every call.

    In a run of several processes each takes its share of them; with a method `share(rank, world_size, split)` they are
    asked for that share, and may be split into smaller ones."""
    observe: "Callable[[nn.Module], Any]"
    """Runs a network on example inputs and returns its outputs."""
    evaluation: Sequence[Any] = ()
    """Fixed batches on which the losses of the report are measured."""
    architecture: Mapping[str, Any] = field(default_factory=dict)
    """JSON from which the plugin's `build` makes the dense network again."""
    teacher: str = ""
    """Where the dense network came from."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Lines to show before the run starts (the data, what was skipped)."""
    data_digest: str = ""
    """Fingerprint of teacher and data: all processes of a run must see the same, and so must a resumed one."""
    describe_batch: Callable[[Any], str] | None = None
    """What to say of a batch that does not fit in memory: its size, and the setting to change."""
    unit: str = "batches"
    """What `Losses.amount` counts."""
    macs_per: str = "example input"
    """What MACs are quoted for."""
    observe_for_macs: "Callable[[nn.Module], Any] | None" = None
    """Runs a network on the input whose MACs are counted; `observe` by default."""
    macs_scale: float = 1.0
    """Factor from the MACs counted to those quoted."""
    deploy: "Callable[[nn.Module], nn.Module] | None" = None
    """Gives a network the form whose latency matters (norms folded, say), with the same names for its blocks."""
    draw: "Callable[[RemovalPlan, Path], None] | None" = None
    """Draws the pruned architecture into a PNG file; by default what each group keeps."""


@runtime_checkable
class Plugin(Protocol):
    """What a plugin class provides."""

    name: str
    """As in `--plugin NAME`."""
    description: str
    """One line."""
    options: type
    """A frozen dataclass of the plugin's own settings, the table [NAME] of the TOML file."""
    recipes: Mapping[str, Mapping[str, Any]]
    """Named settings; the first is the default."""

    def prepare(self, options: Any, run: RunConfig) -> Task:
        """Everything to compress one network."""
        ...

    def build(self, architecture: Mapping[str, Any]) -> "nn.Module":
        """The dense network of a task's `architecture`, with any weights."""
        ...


@dataclass(frozen=True, kw_only=True)
class ExportFormat:
    """A format that a plugin writes."""

    holds: str
    """What it is, and what it can and cannot hold."""
    suffix: str = ""
    """Of the file; a folder has none."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """What an export wrote."""

    source: str
    format: str
    path: str
    parameters: int
    """Of the network."""
    max_relative_difference: float
    """Between the outputs of the network and those of what was written, opened again."""
    notes: tuple[str, ...] = ()
    """What was left out or supplied."""

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)


@runtime_checkable
class Exporter(Protocol):
    """What a plugin provides beside `Plugin` to export networks."""

    formats: Mapping[str, ExportFormat]
    """By name."""

    def export(self, source: str, to: str, out: Path) -> Export:
        """Write `source` as format `to` at `out`, compared with the network before it stands there."""
        ...


@runtime_checkable
class Benchable(Protocol):
    """What a plugin provides beside `Plugin` to have its networks measured."""

    def contender(self, source: str, workspace: Path) -> "Contender":
        """A run's network, or what the plugin takes as a teacher; `workspace` is for what is made on the way."""
        ...

    def load(self, seconds: float, batch: int) -> "Load":
        """Inputs of a length."""
        ...


@runtime_checkable
class Evaluator(Protocol):
    """What a plugin provides beside `Plugin` to have models scored on tasks."""

    tasks: "Mapping[str, EvaluationTask]"
    """By name."""

    def evaluate(
        self, models: Sequence[str], settings: "EvaluationSettings", note: Callable[[str], None]
    ) -> "Evaluation":
        """Score run directories, what the plugin takes as a teacher, and its yardsticks; `note` tells how far it is."""
        ...


def plugin_names() -> list[str]:
    """Names of the installed plugins."""
    return sorted({entry.name for entry in entry_points(group=ENTRY_POINT_GROUP)})


@dataclass(frozen=True)
class _NoOptions:
    """A caller's own task has no settings of its own."""


class OwnTask:
    """A caller's own task in a plugin's place: `l0prune.compress(task)`.

    Args:
        task: What its `prepare` gives.
    """

    def __init__(self, task: Task) -> None:
        self.name, self.description, self.options = "task", "a caller's own task", _NoOptions
        self.recipes: Mapping[str, Mapping[str, Any]] = {"own": {}}
        self.task = task

    def prepare(self, options: Any, run: RunConfig) -> Task:
        """The task."""
        return self.task

    def build(self, architecture: Mapping[str, Any]) -> "nn.Module":
        """Nothing that could be asked for."""
        raise NotImplementedError  # Never called: the saved network names no plugin.


def get_plugin(name: str) -> Plugin:
    """Find and check a plugin.

    Raises:
        PluginError: There is none of that name, it cannot be imported, or it lacks something.
    """
    found = {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in found:
        raise PluginError("no such plugin", where=name, hint=nearest(name, found))
    try:
        plugin = found[name].load()()
    except Exception as error:
        raise PluginError(
            "plugin cannot be loaded", where=f"{name} ({found[name].value})", got=f"{type(error).__name__}: {error}"
        ) from error
    where = f"{name} ({found[name].value})"
    missing = [
        attribute
        for attribute in ("name", "description", "options", "recipes", "prepare", "build")
        if not hasattr(plugin, attribute)
    ]
    if missing:
        raise PluginError("plugin is incomplete", where=where, expected=f"attributes {', '.join(missing)}")
    if not is_dataclass(plugin.options):
        raise PluginError("plugin's options are no dataclass", where=where, got=repr(plugin.options))
    if not plugin.recipes:
        raise PluginError("plugin has no recipe", where=where, expected="at least one, the default")
    return plugin
