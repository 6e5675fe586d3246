"""The number of parameters as a polynomial in kept counts."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from torch import nn

from l0prune.errors import GroupError
from l0prune.groups import PruneGroup
from l0prune.size.polynomial import ALIVE, MAX_POWER, Monomial, SizeModel


def parameter_size(model: nn.Module, groups: Sequence[PruneGroup], *, within_reach: bool = False) -> SizeModel:
    """Count a model's parameters as a polynomial of its groups' kept counts.

    Args:
        model: The dense model; a parameter that is shared counts once.
        groups: Its prune groups.
        within_reach: Leave out the tensors that keep their size whatever is removed.

    Raises:
        GroupError: A group's units take different numbers of indices on one tensor, or one group stands on more than
            four dimensions of a tensor.
    """
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    return SizeModel(groups, tensor_monomials(shapes, groups, within_reach=within_reach))


def tensor_monomials(
    shapes: Mapping[str, tuple[int, ...]],
    groups: Sequence[PruneGroup],
    *,
    within_reach: bool = False,
    factors_of: Mapping[str, int] | None = None,
) -> Counter[Monomial]:
    """How many elements tensors have, as the coefficient of each monomial of kept counts.

    Args:
        shapes: Of the dense model's tensors, by name.
        groups: Its prune groups.
        within_reach: Leave out the tensors that keep their size whatever is removed.
        factors_of: What an element of each tensor counts; 1 by default.

    Raises:
        GroupError: One group stands on more than four dimensions of a tensor.
    """
    dimensions: dict[str, dict[int, list[tuple[int, int]]]] = {name: {} for name in shapes}
    switches: dict[str, list[tuple[int, int]]] = {name: [] for name in shapes}
    for g, group in enumerate(groups):
        for place in group.places:
            if place.tensor not in shapes:
                continue  # cut, but not counted
            if place.dim is None:
                switches[place.tensor].append((g, 1))
            else:
                dimensions[place.tensor].setdefault(place.dim, []).append((g, place.width))
        for tensor in group.alive_with:
            if tensor in shapes:
                switches[tensor].append((g, ALIVE))
    coefficients: Counter[Monomial] = Counter()
    for name, shape in shapes.items():
        if within_reach and not (dimensions[name] or switches[name]):
            continue
        sums = []
        for dim, extent in enumerate(shape):
            standing = dimensions[name].get(dim, [])
            fixed = extent - sum(width * groups[g].units for g, width in standing)
            sums.append([(fixed, None), *((width, (g, 1)) for g, width in standing)])
        for term in itertools.product(*sums):
            coefficient = int(np.prod([c for c, _ in term], dtype=np.int64))
            factors = [factor for _, factor in term if factor is not None]
            if coefficient:
                coefficients[_merge([*factors, *switches[name]], name)] += coefficient * (factors_of or {}).get(name, 1)
    return coefficients


def _merge(factors: list[tuple[int, int]], name: str) -> Monomial:
    powers: dict[int, int] = {}
    for g, power in factors:
        # 1[K > 0] adds nothing beside a power of the same K.
        powers[g] = powers.get(g, 0) + power
    if any(power > MAX_POWER for power in powers.values()):
        raise GroupError("one group stands on more than four dimensions of a tensor", where=name)
    return tuple(sorted(powers.items()))
