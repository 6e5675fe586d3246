"""Multiply-accumulates of a traced forward pass, as a polynomial of kept counts."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from torch import nn

from l0prune.discovery import Cost, Trace
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
    classes = found.classes()
    owner = np.full(found.size, -1)
    for g, group in enumerate(groups):
        for place in group.places:
            if place.dim is not None and place.tensor in found.leaves:
                atoms = found.leaves[place.tensor][place.dim][place.index.ravel()]
                owner[classes[atoms]] = g
    coefficients: Counter[Monomial] = Counter()
    around = [(g, [bypass.module for bypass in group.bypasses]) for g, group in enumerate(groups) if group.bypass]
    switches_in: dict[str, list[int]] = {}
    for cost in costs:
        if cost.module not in switches_in:
            switches_in[cost.module] = [g for g, paths in around if is_inside(cost.module, *paths)]
        switches = switches_in[cost.module]
        terms: dict[Monomial, int] = {(): cost.factor}
        for atoms in cost.extents:
            owners, counts = np.unique(np.where(atoms == 0, -1, owner[classes[atoms]]), return_counts=True)
            grown: Counter[Monomial] = Counter()
            for monomial, coefficient in terms.items():
                for g, count in zip(owners.tolist(), counts.tolist(), strict=True):
                    if g < 0:
                        grown[monomial] += coefficient * count
                    elif count % groups[g].units:
                        raise GroupError("units of a group cost differently", where=f"{groups[g].name}, {cost.module}")
                    else:
                        grown[_times(monomial, g)] += coefficient * (count // groups[g].units)
            terms = grown
        for monomial, coefficient in terms.items():
            coefficients[with_switches(monomial, switches)] += coefficient
    return coefficients


def _times(monomial: Monomial, g: int) -> Monomial:
    powers = dict(monomial)
    powers[g] = powers.get(g, 0) + 1
    return tuple(sorted(powers.items()))
