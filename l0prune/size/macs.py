"""Multiply-accumulates of a traced forward pass, as a polynomial of kept counts."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from torch import nn

from l0prune.discovery import Atoms, Cost, Trace
from l0prune.errors import GroupError
from l0prune.groups import PruneGroup
from l0prune.size.polynomial import Monomial, SizeModel, with_switches
from l0prune.support import is_inside


def mac_size(model: nn.Module, groups: Sequence[PruneGroup], found: Trace) -> SizeModel:
    """Multiply-accumulates of the traced forward pass as a polynomial of the groups' kept counts.

    Counts matrix products, convolutions, attention products and recurrent layers, as torch's FlopCounterMode does (half
    its figure).

    Args:
        model: The traced model.
        groups: Its prune groups.
        found: `trace` of the model on the input that MACs are quoted for.
    """
    return SizeModel(groups, mac_monomials(groups, found, found.costs), counts="multiply-accumulates")


def mac_monomials(groups: Sequence[PruneGroup], found: Trace, costs: Sequence[Cost]) -> Counter[Monomial]:
    """Multiply-accumulates of some operators as the coefficient of each monomial.

    Args:
        groups: The prune groups of the traced model.
        found: The trace.
        costs: Which of its operators to count.
    """
    coefficients: Counter[Monomial] = Counter()
    lengths = TracedLengths(groups, found)
    for cost in costs:
        coefficients.update(lengths.monomials(cost.module, cost.factor, cost.extents))
    return coefficients


class TracedLengths:
    """What dimensions of a traced pass are long, in kept counts.

    Args:
        groups: The prune groups of the traced model.
        found: The trace.
    """

    def __init__(self, groups: Sequence[PruneGroup], found: Trace) -> None:
        self._groups = groups
        classes = found.classes()
        owner = np.full(found.size, -1)
        for g, group in enumerate(groups):
            for place in group.places:
                if place.dim is not None and place.tensor in found.leaves:
                    atoms = found.leaves[place.tensor][place.dim][place.index.ravel()]
                    owner[classes[atoms]] = g
        self._owners = np.where(np.arange(found.size) == 0, -1, owner[classes])
        """The group of each atom, -1 for none."""
        self._around = [
            (g, [bypass.module for bypass in group.bypasses]) for g, group in enumerate(groups) if group.bypass
        ]
        self._switches: dict[str, list[int]] = {}
        self._counted: dict[int, tuple[Atoms, list[tuple[int, int]]]] = {}

    def monomials(self, module: str, factor: int, extents: Sequence[Atoms]) -> dict[Monomial, int]:
        """`factor` times the lengths of `extents`, while the block that it stands in is there.

        Raises:
            GroupError: Units of a group count differently.
        """
        terms: dict[Monomial, int] = {(): factor}
        for atoms in extents:
            grown: Counter[Monomial] = Counter()
            for g, count in self._count(atoms, module):
                for monomial, coefficient in terms.items():
                    grown[monomial if g < 0 else _times(monomial, g)] += coefficient * count
            terms = grown
        switches = self._switches_of(module)
        return {with_switches(monomial, switches): coefficient for monomial, coefficient in terms.items()}

    def _switches_of(self, module: str) -> list[int]:
        if module not in self._switches:
            self._switches[module] = [g for g, paths in self._around if is_inside(module, *paths)]
        return self._switches[module]

    def _count(self, atoms: Atoms, module: str) -> list[tuple[int, int]]:
        """How many of the atoms each unit of a group has; -1 for those that never go."""
        if id(atoms) not in self._counted:
            owners, counts = np.unique(self._owners[atoms], return_counts=True)
            found = []
            for g, count in zip(owners.tolist(), counts.tolist(), strict=True):
                units = self._groups[g].units if g >= 0 else 1
                if count % units:
                    raise GroupError("units of a group cost differently", where=f"{self._groups[g].name}, {module}")
                found.append((g, count // units))
            # The array is kept, for its number may be another's once it is gone.
            self._counted[id(atoms)] = atoms, found
        return self._counted[id(atoms)][1]


def _times(monomial: Monomial, g: int) -> Monomial:
    powers = dict(monomial)
    powers[g] = powers.get(g, 0) + 1
    return tuple(sorted(powers.items()))
