"""A size that is a maximum: what is always there, and the largest of what is there at several moments.

Legend: G groups, N units of all groups, M monomials, P moments, E entries of all moments.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from l0prune.groups import PruneGroup
from l0prune.size.polynomial import Monomial, SizeModel, renumbered, with_others_whole

_SMOOTH = 1 / 8
"""Share of the dense peak by which a moment may be lower and still count a good deal where units are priced."""


class PeakSize(SizeModel):
    """The sum of a polynomial and of the largest of several others.

    Args:
        groups: The prune groups, in the order of the flat vectors.
        always: Integer coefficient of each monomial of what is always there.
        moments: The same for each moment, none of them negative.
        counts: What is counted, for messages.
        total: The size that sparsity refers to; by default that with every unit kept.
        unit: How much of the size makes one of `counts`.
    """

    def __init__(
        self,
        groups: Sequence[PruneGroup],
        always: Mapping[Monomial, int],
        moments: Sequence[Mapping[Monomial, int]],
        counts: str,
        total: int | None = None,
        unit: int = 1,
    ) -> None:
        # No moment is empty: sums go from the start of one to that of the next.
        self.always, self.moments = dict(always), [dict(moment) or {(): 0} for moment in moments] or [{(): 0}]
        # A monomial of moments alone counts nothing in what is always there.
        union = {monomial: 0 for moment in self.moments for monomial in moment} | self.always
        number = {monomial: m for m, monomial in enumerate(union)}
        entries = [
            (p, number[monomial], value) for p, moment in enumerate(self.moments) for monomial, value in moment.items()
        ]
        table = np.array(entries, dtype=np.int64).reshape(-1, 3).T
        self._rows, self._of, self._values_of = table[0], table[1], table[2]
        self._starts = np.searchsorted(self._rows, np.arange(len(self.moments)))
        self._moments_on: dict[torch.device, tuple[Tensor, Tensor, Tensor]] = {}
        super().__init__(groups, union, counts, total, unit)

    def exact(self, kept: np.ndarray) -> int:
        """The size for kept counts (G,), as an integer."""
        values = self._values(kept)
        return int((values * self._coefficients).sum()) + int(self._at_moments(values).max())

    def at_moments(self, kept: np.ndarray) -> np.ndarray:
        """(P,) int64: what is there at each moment beside what always is, for kept counts (G,)."""
        return self._at_moments(self._values(kept))

    def _at_moments(self, values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(self._values_of * values[self._of], self._starts)

    def of_units(self) -> np.ndarray:
        """(G,) what leaves with one unit of each group, where every moment counts that comes near the peak."""
        _, slope = self.tangent()
        return np.round(slope).astype(np.int64)

    def expected(self, keep_probabilities: Tensor) -> Tensor:
        """The largest expected size of all moments when unit i is kept with probability p_i; differentiable.

        The expectation of the peak is above it by what the moments vary, and equal once every p_i is 0 or 1.
        """
        always, moments = self._expected_parts(keep_probabilities)
        return always + moments.max()

    def priced(self, keep_probabilities: Tensor) -> Tensor:
        """A smooth maximum in its place: units of a moment just below the peak have a price too."""
        always, moments = self._expected_parts(keep_probabilities)
        scale = _SMOOTH * max(1.0, float(self.at_moments(self.units).max()))
        return always + scale * torch.logsumexp(moments / scale, 0)

    def _expected_parts(self, keep_probabilities: Tensor) -> tuple[Tensor, Tensor]:
        """What is expected to be there always, a scalar, and at each moment (P,)."""
        device = keep_probabilities.device
        coefficients = self._tensors(device)[1]
        if device not in self._moments_on:
            arrays = (self._rows, self._of, self._values_of.astype(np.float64))
            with torch.inference_mode(False):
                rows, of, values = (torch.from_numpy(array.copy()).to(device) for array in arrays)
            self._moments_on[device] = rows, of, values
        rows, of, values = self._moments_on[device]
        terms = self._expected_terms(keep_probabilities, torch.ones_like(coefficients))
        moments = terms.new_zeros(len(self.moments)).index_add(0, rows, values * terms[of])
        return (terms * coefficients).sum(), moments

    def tangent(self) -> tuple[float, np.ndarray]:
        """A linear function of kept counts that is nowhere above the size.

        A mean of the moments is below their maximum. Those near the dense peak count most in it, as in `priced`.
        """
        dense = self.at_moments(self.units).astype(np.float64)
        weights = np.exp((dense - dense.max()) / (_SMOOTH * max(1.0, dense.max())))
        mean: dict[Monomial, float] = dict(self.always)
        for weight, moment in zip(weights / weights.sum(), self.moments, strict=True):
            for monomial, value in moment.items():
                mean[monomial] = mean.get(monomial, 0.0) + weight * value
        return self._tangent_of(mean)

    def restricted(self, groups: Sequence[PruneGroup], numbers: Sequence[int]) -> "PeakSize":
        """The same size once some units are gone for good; sparsity still refers to the same total."""
        always, *moments = (renumbered(part, numbers) for part in (self.always, *self.moments))
        return PeakSize(groups, always, moments, self.counts, self.total, self.unit)

    def where_others_stay(self, numbers: Sequence[int]) -> "PeakSize":
        """The same size for some groups alone, while all others keep all of their units."""
        always, *moments = (with_others_whole(part, numbers, self.units) for part in (self.always, *self.moments))
        return PeakSize([self.groups[g] for g in numbers], always, moments, self.counts, self.total, self.unit)


def undominated(moments: Sequence[Mapping[Monomial, int]]) -> list[dict[Monomial, int]]:
    """Moments without those that are nowhere above another one; equal ones once.

    Coefficients are not negative, so that a moment is nowhere above another whose coefficients are all as large.
    """
    different = {frozenset(moment.items()): dict(moment) for moment in moments if moment}
    left: list[dict[Monomial, int]] = []
    for moment in sorted(different.values(), key=len, reverse=True):
        if not any(all(other.get(monomial, 0) >= value for monomial, value in moment.items()) for other in left):
            left = [
                other
                for other in left
                if not all(moment.get(monomial, 0) >= value for monomial, value in other.items())
            ]
            left.append(moment)
    return left
