"""What share of a network's units can go, by kind, and what every refusal costs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from l0prune.discovery import LeftAlone
from l0prune.groups import PruneGroup, Role

_PLAIN = {"conv": "channels", "head": "heads", "embedding": "trunk", "block": "blocks", "branch": "branches"}


@dataclass(frozen=True, kw_only=True)
class Share:
    """How many of a network's units of one kind can go, without those of the model's own output."""

    kind: str
    """The field's word: heads, channels of convolutions, features of other layers, trunk for the width that several
    layers add to, blocks or branches of depth, or a word of a layer's own."""
    units: int
    reached: int
    """Those in groups that are proved."""


def kind_of(group: PruneGroup, layers: Mapping[tuple[str, int], str]) -> str:
    """What a share counts a group's units among.

    Args:
        group: The group.
        layers: The dimensions (tensor, dim) on which layers make units.
    """
    made = {place.tensor for place in group.places if (place.tensor, place.dim) in layers}
    makers = {place.tensor for place in group.places if place.tensor in made and place.role is Role.PRODUCES}
    readers = {place.tensor for place in group.places if place.role is Role.CONSUMES}
    if group.kind != "head" and len(makers) > 1 and len(readers) > 1:
        return "trunk"
    return _kind(group.kind)


def _kind(kind: str) -> str:
    return "features" if kind == "unit" else _PLAIN.get(kind, kind)


def shares_of(
    groups: Sequence[PruneGroup],
    proved: Iterable[str],
    left_alone: Iterable[LeftAlone],
    layers: Mapping[tuple[str, int], str],
) -> tuple[Share, ...]:
    """The share of units that can go, by kind, in the order in which kinds are found.

    Args:
        groups: All that were found.
        proved: The names of those that are proved.
        left_alone: What stands in no group.
        layers: The dimensions (tensor, dim) on which layers make units.
    """
    known = set(proved)
    units: dict[str, list[int]] = {}
    for group in groups:
        count = units.setdefault(kind_of(group, layers), [0, 0])
        count[0] += group.units
        count[1] += group.units if group.name in known else 0
    for alone in left_alone:
        if not alone.interface:
            units.setdefault(_kind(alone.kind), [0, 0])[0] += alone.units
    return tuple(Share(kind=kind, units=total, reached=reached) for kind, (total, reached) in units.items())
