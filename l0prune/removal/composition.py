"""Two plans, one after the other, as one: in the indices of the network that the first was made for."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from l0prune.errors import PlanError
from l0prune.groups import PruneGroup

_SAME_UNITS = "prune again in the units of the first: `groups=plan.remaining_groups()` of its plan"


class Plan(Protocol):
    """What two plans are composed by; a `RemovalPlan`, which composes itself by the functions of this file."""

    @property
    def groups(self) -> tuple[PruneGroup, ...]:
        """The groups that it cuts."""
        ...

    @property
    def kept(self) -> Mapping[str, tuple[int, ...]]:
        """Kept units by group name, ascending."""
        ...

    def survivors(self) -> dict[tuple[str, int], np.ndarray]:
        """The indices that stay, ascending, along each dimension (tensor, dim) that loses some."""
        ...

    def pruned_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the network that it leaves, by tensor."""
        ...


def composed(first: Plan, second: Plan) -> tuple[tuple[PruneGroup, ...], dict[str, tuple[int, ...]]]:
    """The groups and the kept units of a plan that cuts as both do, in the first one's indices.

    Args:
        first: Made for a network.
        second: Made for the network that the first leaves.

    Raises:
        PlanError: The second cuts through units of the first one's groups.
    """
    places = _Origins(first)
    kept = {name: set(units) for name, units in first.kept.items()}
    added: list[PruneGroup] = []
    for group in second.groups:
        moved = places.moved(group)
        gone = [u for u in range(group.units) if u not in second.kept[group.name]]
        if places.known(moved):
            for name, units in places.units_of(moved, gone).items():
                kept[name] -= units
        else:
            names = {*kept, *(other.name for other in added)}
            candidates = (group.name, *(f"{group.name}#{i}" for i in range(2, 2 + len(names))))
            name = next(n for n in candidates if n not in names)
            added.append(replace(moved, name=name))
            kept[name] = set(second.kept[group.name])
    return (*first.groups, *added), {name: tuple(sorted(units)) for name, units in kept.items()}


def check_whole_units(first: Plan, groups: Sequence[PruneGroup]) -> None:
    """Check that any plan over `groups` can follow the first one, whichever units it cuts.

    Raises:
        PlanError: A unit of `groups` is a part of one of the first plan's, or a place of it is.
    """
    places = _Origins(first)
    for group in groups:
        moved = places.moved(group)
        if places.known(moved):
            for unit in range(group.units):
                places.units_of(moved, [unit])


class _Origins:
    """Where the places of a pruned network stood in the dense one, and whose units they were."""

    def __init__(self, plan: Plan) -> None:
        self._survivors, self._left = plan.survivors(), plan.pruned_shapes()
        self._groups = {group.name: group for group in plan.groups}
        self._owners: dict[tuple[str, int | None, int], tuple[str, int]] = {}
        for group in plan.groups:
            for place in group.places:
                for unit, row in enumerate(place.index.tolist()):
                    self._owners.update({(place.tensor, place.dim, i): (group.name, unit) for i in row})

    def moved(self, group: PruneGroup) -> PruneGroup:
        """The group with its places in the dense network's indices."""
        places = []
        for place in group.places:
            stayed = None if place.dim is None else self._survivors.get((place.tensor, place.dim))
            places.append(place if stayed is None else replace(place, index=stayed[place.index]))
        return replace(group, places=tuple(places))

    def known(self, group: PruneGroup) -> bool:
        """Whether the group's places are those of units of the first plan, rather than of none.

        Raises:
            PlanError: Some are and some are not.
        """
        cells = [cell for unit in range(group.units) for cell in _cells(group, unit)]
        owned = [cell in self._owners for cell in cells]
        if any(owned) and not all(owned):
            tensor = cells[owned.index(False)][0]
            where = f"{group.name}, {tensor}"
            raise PlanError("plans cannot be joined: their groups overlap in part", where=where, hint=_SAME_UNITS)
        return all(owned)

    def units_of(self, group: PruneGroup, gone: Sequence[int]) -> dict[str, set[int]]:
        """The first plan's units, by group, that make up the second one's removed ones.

        Raises:
            PlanError: The second plan cuts through a unit of the first.
        """
        cells = {cell for unit in gone for cell in _cells(group, unit)}
        units: dict[str, set[int]] = {}
        for name, unit in {self._owners[cell] for cell in cells}:
            units.setdefault(name, set()).add(unit)
            # What went with a bypassed block is not there to be cut again.
            if not cells.issuperset(c for c in _cells(self._groups[name], unit) if c[0] in self._left):
                what = "plans cannot be joined: the second cuts through units of the first"
                raise PlanError(what, where=f"{group.name}, {name}", hint=_SAME_UNITS)
        return units


def _cells(group: PruneGroup, unit: int) -> list[tuple[str, int | None, int]]:
    return [(place.tensor, place.dim, i) for place in group.places for i in place.index[unit].tolist()]
