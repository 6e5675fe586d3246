"""Size as a polynomial of kept counts, in expectation and exactly.

Every parameter tensor has as many elements as the product, over its dimensions, of what is kept there; the model is
their sum. The polynomial is compiled once into index arrays, so that both evaluations are a handful of vector
operations whatever the number of tensors.

Legend: G groups, N units of all groups, M monomials, F factors of the longest monomial, K_g kept units of group g.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import prod

import numpy as np
import torch
from torch import Tensor

from l0prune.groups import PruneGroup
from l0prune.support import plain

MAX_POWER = 4
ALIVE = 0
"""The power that stands for 1[K_g > 0]: the column beside the powers 1 to 4 of K_g."""

Monomial = tuple[tuple[int, int], ...]
"""Sorted factors (group, power)."""


class SizeModel:
    """A size that depends on how many units of each group are kept.

    Args:
        groups: The prune groups, in the order of the flat vectors.
        coefficients: Integer coefficient of each monomial.
        counts: What is counted, for messages.
        total: The size that sparsity refers to; by default that with every unit kept.
        unit: How much of the size makes one of `counts`: another number than 1 where it counts in smaller steps.
    """

    def __init__(
        self,
        groups: Sequence[PruneGroup],
        coefficients: Mapping[Monomial, int],
        counts: str = "parameters",
        total: int | None = None,
        unit: int = 1,
    ) -> None:
        self.counts, self.unit, self.coefficients = counts, unit, dict(coefficients)
        self.units = np.array([group.units for group in groups], dtype=np.int64)
        self.least = np.array([group.least_units for group in groups], dtype=np.int64)
        self.groups = tuple(groups)
        width = 1 + MAX_POWER
        # One entry past the table is the constant 1 that pads short monomials.
        pad = len(groups) * width
        longest = max((len(factors) for factors in coefficients), default=0)
        rows = [[g * width + power for g, power in factors] for factors in coefficients]
        padded = [row + [pad] * (longest - len(row)) for row in rows]
        self._factors = np.array(padded, dtype=np.int64).reshape(len(rows), longest)
        self._coefficients = np.array(list(coefficients.values()), dtype=np.int64)
        self._columns = sorted({power for factors in coefficients for _, power in factors})
        self._on_device: dict[torch.device, tuple[tuple[Tensor, ...], Tensor, Tensor]] = {}
        self.total = self.exact(self.units) if total is None else total
        """The size that sparsity refers to: the dense network's."""

    def exact(self, kept: np.ndarray) -> int:
        """The size for kept counts (G,), as an integer."""
        return int((self._values(kept) * self._coefficients).sum())

    def _values(self, kept: np.ndarray) -> np.ndarray:
        """(M,) the monomials for kept counts (G,)."""
        return self._table(kept)[self._factors].prod(axis=1)

    def _table(self, kept: np.ndarray) -> np.ndarray:
        """What factors are numbers of entries of: for each group 1[K > 0] and the powers of K, and a 1 at the end."""
        table = np.concatenate([(kept > 0)[:, None], kept[:, None] ** np.arange(1, 1 + MAX_POWER)], axis=1)
        return np.append(table.astype(np.int64).ravel(), 1)

    def of_units(self) -> np.ndarray:
        """(G,) what leaves the size that `units` give with one unit of each group."""
        width, groups = 1 + MAX_POWER, len(self.units)
        owners = self._factors // width
        # Each monomial once for each of its groups.
        pairs = np.unique(np.stack([np.repeat(np.arange(len(owners)), owners.shape[1]), owners.ravel()]), axis=1)
        rows, of = pairs[:, pairs[1] < groups]
        before, after = self._table(self.units), self._table(self.units - 1)
        factors = self._factors[rows]
        one_less = np.where(owners[rows] == of[:, None], after[factors], before[factors]).prod(axis=1)
        gone = np.zeros(groups, dtype=np.int64)
        np.add.at(gone, of, (before[factors].prod(axis=1) - one_less) * self._coefficients[rows])
        return gone

    def shown(self, size: int) -> str:
        """The number that people read before `counts`: 1,234 (parameters), 12.34 (ms)."""
        return f"{size:,}" if self.unit == 1 else plain(size / self.unit)

    @property
    def floor(self) -> int:
        """The smallest size that removal can reach."""
        return self.floor_for(1)

    def floor_for(self, round_to: int) -> int:
        """The smallest size that removal can reach with widths that are multiples of `round_to`."""
        steps = np.array([group.step(round_to) for group in self.groups], dtype=np.int64)
        return self.exact(np.where(self.least > 0, np.maximum(steps, self.least), 0))

    def priced(self, keep_probabilities: Tensor) -> Tensor:
        """The expected size by whose gradient units are priced, float64 scalar: the size itself."""
        return self.expected(keep_probabilities)

    def tangent(self) -> tuple[float, np.ndarray]:
        """A linear function of kept counts that is nowhere above the size: its value without any unit, and by unit.

        It touches the size at the dense network: growth of products and powers only slows down as units leave. A switch
        1[K > 0] is at least K / units. What is subtracted from the size counts in full.

        Returns:
            The constant, and the coefficient of each kept count (G,).
        """
        return self._tangent_of(self.coefficients)

    def _tangent_of(self, coefficients: Mapping[Monomial, float]) -> tuple[float, np.ndarray]:
        units = self.units.astype(np.float64)
        slope = np.zeros(len(units))
        dense = 0.0
        for factors, coefficient in coefficients.items():
            value = coefficient * float(np.prod([units[g] ** power for g, power in factors if power != ALIVE]))
            dense += value
            if value > 0:
                for g, power in factors:
                    slope[g] += value * max(power, 1) / units[g]
        return dense - float(slope @ units), slope

    def restricted(self, groups: Sequence[PruneGroup], numbers: Sequence[int]) -> "SizeModel":
        """The same size once some units are gone for good; sparsity still refers to the same total.

        Args:
            groups: What is left of the groups that have units left.
            numbers: Which of this model's groups these are.
        """
        return SizeModel(groups, renumbered(self.coefficients, numbers), self.counts, self.total, self.unit)

    @property
    def counted(self) -> list[int]:
        """The numbers of the groups whose units make a difference."""
        return sorted({g for factors in self.coefficients for g, _ in factors})

    def where_others_stay(self, numbers: Sequence[int]) -> "SizeModel":
        """The same size for some groups alone, while all others keep all of their units.

        Args:
            numbers: Which of this model's groups those are.
        """
        left = with_others_whole(self.coefficients, numbers, self.units)
        return SizeModel([self.groups[g] for g in numbers], left, self.counts, self.total, self.unit)

    def expected(self, keep_probabilities: Tensor) -> Tensor:
        """The expected size when unit i is kept independently with probability p_i; differentiable.

        Powers of one K_g use its raw moments (E[K^2] = Var[K] + E[K]^2, and so on): a group that stands on two
        dimensions of a tensor is counted right.

        Args:
            keep_probabilities: (N,) the groups' units one after the other.

        Returns:
            Float64 scalar.
        """
        return self._expected_terms(keep_probabilities, self._tensors(keep_probabilities.device)[1]).sum()

    def _expected_terms(self, keep_probabilities: Tensor, coefficients: Tensor) -> Tensor:
        """(M,) the expected monomials for keep probabilities (N,), times coefficients (M,)."""
        p = keep_probabilities.double()
        factors, _, lengths = self._tensors(p.device)
        table = torch.cat([*_moments(p, lengths, self._columns), p.new_ones(1)])
        # Factor by factor: the derivative of `prod` looks for zeros, which waits for the GPU.
        terms = coefficients
        for entries in factors:
            terms = terms * table.index_select(0, entries)
        return terms

    def _tensors(self, device: torch.device) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        if device not in self._on_device:
            width, groups = 1 + MAX_POWER, len(self.units)
            # The table of `expected` has a column after the other, of those that are needed, then the 1.
            column = np.array([self._columns.index(n) if n in self._columns else 0 for n in range(width)])
            entries = column[self._factors % width] * groups + self._factors // width
            entries[self._factors == groups * width] = len(self._columns) * groups
            arrays = (self._coefficients.astype(np.float64), self.units, *entries.T)
            # Not of `torch.inference_mode`, if that is on now: gradients may be wanted later.
            with torch.inference_mode(False):
                coefficients, lengths, *factors = (torch.from_numpy(array.copy()).to(device) for array in arrays)
            self._on_device[device] = (tuple(factors), coefficients, lengths)
        return self._on_device[device]


def _moments(p: Tensor, lengths: Tensor, columns: Sequence[int]) -> list[Tensor]:
    """P(K > 0) and E[K], ..., E[K^4] of each group's kept count, those that are asked for.

    Args:
        p: (N,) keep probabilities.
        lengths: (G,) units of each group.
        columns: Powers of K; `ALIVE` is P(K > 0).

    Returns:
        (G,) for each column.
    """

    def summed(term: Tensor) -> Tensor:
        # Unsafe: not checked, since a check would wait for the GPU.
        return torch.segment_reduce(term, "sum", lengths=lengths, axis=0, unsafe=True)

    moments, highest = {}, max(columns, default=0)
    q = 1 - p if ALIVE in columns or highest >= 2 else p
    if ALIVE in columns:
        moments[ALIVE] = 1 - summed(q.clamp_min(torch.finfo(p.dtype).tiny).log()).exp()
    # The cumulants k1 to k4 of independent Bernoulli variables add up.
    if highest >= 1:
        moments[1] = k1 = summed(p)
        if highest >= 2:
            variance = p * q
            k2 = summed(variance)
            moments[2] = k2 + k1**2
            if highest >= 3:
                k3 = summed(variance * (q - p))
                k4 = summed(variance * (1 - 6 * variance))
                moments[3] = k3 + 3 * k2 * k1 + k1**3
                moments[4] = k4 + 4 * k3 * k1 + 3 * k2**2 + 6 * k2 * k1**2 + k1**4
    return [moments[column] for column in columns]


def renumbered(coefficients: Mapping[Monomial, int], numbers: Sequence[int]) -> dict[Monomial, int]:
    """Coefficients for those groups alone that have units left; `numbers` are the old ones, by the new ones."""
    place = {old: new for new, old in enumerate(numbers)}
    return {
        tuple((place[g], power) for g, power in factors): coefficient
        for factors, coefficient in coefficients.items()
        # A group without units makes its terms 0.
        if all(g in place for g, _ in factors)
    }


def with_others_whole(
    coefficients: Mapping[Monomial, int], numbers: Sequence[int], units: np.ndarray
) -> Counter[Monomial]:
    """Coefficients for some groups alone, while all others keep all of their units (G,)."""
    place = {old: new for new, old in enumerate(numbers)}
    left: Counter[Monomial] = Counter()
    for factors, coefficient in coefficients.items():
        whole = prod(int(units[g]) ** power for g, power in factors if g not in place)
        left[tuple((place[g], power) for g, power in factors if g in place)] += coefficient * whole
    return left


def unit_sizes(size_model: SizeModel) -> list[int]:
    """What leaves the dense network with one unit of each group (G,)."""
    # Sparsity may refer to the size of a network that had more units.
    gone_before = size_model.total - size_model.exact(size_model.units)
    return [gone_before + int(gone) for gone in size_model.of_units()]


def with_switches(monomial: Monomial, groups: Iterable[int]) -> Monomial:
    """A monomial times 1[K_g > 0] of some groups; those that are in it make it 0 without one."""
    missing = [(g, ALIVE) for g in groups if g not in dict(monomial)]
    return tuple(sorted([*monomial, *missing]))
