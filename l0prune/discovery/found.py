"""What discovery finds in a model."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from l0prune.discovery.sizes import SizedModules
from l0prune.discovery.traced import Trace
from l0prune.groups import PruneGroup


@dataclass(frozen=True, kw_only=True)
class LeftAlone:
    """Hidden units that cannot be pruned, and why."""

    name: str
    kind: str
    units: int
    reason: str
    parameters: int = 0
    """Parameters that stand on them: what it costs that they stay."""
    interface: bool = False
    """Whether they are the model's own output: not hidden at all."""


@dataclass(frozen=True, kw_only=True)
class Discovery:
    """What following a forward pass has found."""

    groups: tuple[PruneGroup, ...]
    left_alone: tuple[LeftAlone, ...] = ()
    trace: Trace | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()
    hidden_units: int = 0
    """Units that layers make in all, without those of the model's own output."""
    layers: Mapping[tuple[str, int], str] = field(default_factory=dict, repr=False)
    """The dimensions (tensor, dim) on which layers make units, with the kind of unit."""

    sized: SizedModules = field(default_factory=SizedModules, repr=False)
    """By path, modules that derive sizes from which units are counted, and could keep them instead."""

    @property
    def reached_units(self) -> int:
        """Those of `hidden_units` that stand in a group."""
        return sum(p.index.size for group in self.groups for p in group.places if (p.tensor, p.dim) in self.layers)

    def without(self, reasons: Mapping[str, str]) -> "Discovery":
        """Leave out groups by name, for a reason each."""
        refused = [
            LeftAlone(name=group.name, kind=group.kind, units=group.units, reason=reasons[group.name])
            for group in self.groups
            if group.name in reasons
        ]
        kept = tuple(group for group in self.groups if group.name not in reasons)
        return replace(self, groups=kept, left_alone=(*self.left_alone, *refused))
