"""The plugin seam: what a plugin gives the pipeline, and how plugins are found.

A plugin is a class registered under the entry-point group `l0prune.plugins`. Its `prepare` returns a `Task`: the dense
network, its prune groups, an objective and data. Nothing else is needed to compress it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from l0prune.config import RunConfig

# A network is opened without the training code: what a task is made of matters to type checkers alone.
if TYPE_CHECKING:
    from torch import nn

    from l0prune.groups import PruneGroup
    from l0prune.training import Objective


@dataclass(frozen=True, kw_only=True)
class UnitKind:
    """What pictures call a kind of unit."""

    title: str
    """For example "Attention heads"."""
    axis: str
    """What the first number in a group's name counts, for example "transformer layer"; it is shown from 1 on."""


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
    unit: str = ""
    """What `Losses.amount` counts, "images" for example; without it progress is shown in steps."""
    macs_per: str = "example input"
    """What MACs are quoted for."""
    observe_for_macs: "Callable[[nn.Module], Any] | None" = None
    """Runs a network on the input whose MACs are counted; `observe` by default."""
    macs_scale: float = 1.0
    """Factor from the MACs counted to those quoted."""
    deploy: "Callable[[nn.Module], nn.Module] | None" = None
    """Gives a network the form whose latency matters (norms folded, say), with the same names for its blocks.

    An attribute `form`, a text, tells forms apart whose weights are alike, for the cache of times."""
    packages: Sequence[str] = ()
    """Distributions, beside those that the core needs, whose versions the report is to tell."""
    kinds: Mapping[str, UnitKind] = field(default_factory=dict)
    """What pictures call the kinds of unit, by the name of a group's `kind`, in the order of their panels."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """What the run directory holds beside the network, by relative name: a tokenizer, for example."""

    def observe_load(self, network: "nn.Module") -> Any:
        """A network's outputs on the input whose cost counts."""
        return (self.observe_for_macs or self.observe)(network)


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
