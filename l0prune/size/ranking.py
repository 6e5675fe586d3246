"""Chunks of units in the order in which they are taken, and the longest choice that fits.

Legend: N units of all groups, G groups, C classes of groups that keep equally many, H chunks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from l0prune.groups import PruneGroup
from l0prune.size.limits import Bounds

Fits = Callable[[np.ndarray], bool]
"""Whether kept counts (C,) are within every budget."""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Chunks of units, each as many of a class's groups as make a multiple of so many channels, best first by class."""

    classes: np.ndarray
    """(G,) the class of each group."""
    owners: np.ndarray
    """(H,) the class of each chunk."""
    sizes: np.ndarray
    """(H,) how many units of each group of its class a chunk has."""
    scores: np.ndarray
    """(H,) mean score; never above that of an earlier chunk of the class."""
    obligatory: np.ndarray
    """(H,) whether a chunk must stay."""
    units: tuple[np.ndarray, ...]
    """The flat numbers of a class's units, (groups, units), best first."""
    total: int
    """N"""

    @classmethod
    def of(
        cls, scores: np.ndarray, groups: Sequence[PruneGroup], classes: np.ndarray, round_to: int, bounds: Bounds
    ) -> "Ranking":
        """Rank units by their scores (N,) within bounds."""
        ends = np.cumsum([group.units for group in groups])
        owners, sizes, means, obligatory, units = [], [], [], [], []
        for number in range(int(classes.max()) + 1):
            members = np.flatnonzero(classes == number)
            group, low, high = groups[members[0]], bounds.low[members].max(), bounds.high[members].min()
            starts = ends[members, None] - group.units
            own = scores[starts + np.arange(group.units)]
            order, step = np.argsort(-own, axis=1, kind="stable"), group.step(round_to)
            firsts = np.arange(0, high, step)
            ordered = np.take_along_axis(own, order, axis=1)
            if step == 1 and len(members) == 1:
                found = ordered[0, firsts]
            else:
                found = np.array([ordered[:, first : first + step].mean() for first in firsts])
            owners.append(np.full(len(firsts), number))
            sizes.append(np.minimum(step, group.units - firsts))
            # Rounding must not lift the mean of a later chunk above an earlier one's.
            means.append(np.minimum.accumulate(found) if len(found) else found)
            obligatory.append(firsts < low)
            units.append(starts + order)
        return cls(
            classes=classes,
            owners=np.concatenate(owners),
            sizes=np.concatenate(sizes),
            scores=np.concatenate(means),
            obligatory=np.concatenate(obligatory),
            units=tuple(units),
            total=int(ends[-1]),
        )

    def order(self, factors: np.ndarray | None = None) -> np.ndarray:
        """Numbers (H,) of the chunks: what must stay, then the best by score times the factor (C,) of its class."""
        scores = self.scores if factors is None else self.scores * factors[self.owners]
        return np.lexsort((np.arange(len(scores)), -scores, ~self.obligatory))

    def take(self, order: np.ndarray, fits: Fits) -> np.ndarray | None:
        """Kept counts (C,): chunks in order while they fit, then later ones that still do.

        Args:
            order: As `order` gives it.
            fits: Whether kept counts are within every budget; what is smaller fits too.

        Returns:
            None where what must stay does not fit.
        """
        first, number = self._prefix(order, fits)
        if number is None:
            return None
        owners, sizes = self.owners[order], self.sizes[order]
        counts = self._counts(owners[:first], sizes[:first])
        owners, sizes = owners[first:], sizes[first:]
        while True:
            counts = counts + self._counts(owners[:number], sizes[:number])
            if number == len(owners):
                return counts
            # Room only shrinks from here and a class's next chunk costs as much: it will not fit either.
            left = owners != owners[number]
            left[:number] = False
            owners, sizes = owners[left], sizes[left]
            number = self._longest(counts, owners, sizes, fits)

    def prefix(self, order: np.ndarray, fits: Fits) -> np.ndarray:
        """Kept counts (C,): as many of the first chunks as fit, and what must stay in any case."""
        first, number = self._prefix(order, fits)
        chosen = order[: first + (number or 0)]
        return self._counts(self.owners[chosen], self.sizes[chosen])

    def kept(self, counts: np.ndarray) -> np.ndarray:
        """(N,) bool, True for the best units of each class, so many of each of its groups."""
        kept = np.zeros(self.total, dtype=bool)
        for units, count in zip(self.units, counts.tolist(), strict=True):
            kept[units[:, :count]] = True
        return kept

    def _prefix(self, order: np.ndarray, fits: Fits) -> tuple[int, int | None]:
        """How many chunks must stay, and how many after them fit; None where what must stay does not."""
        owners, sizes = self.owners[order], self.sizes[order]
        first = int(self.obligatory.sum())
        counts = self._counts(owners[:first], sizes[:first])
        if not fits(counts):
            return first, None
        owners, sizes = owners[first:], sizes[first:]
        low, high = 0, len(owners)
        while low < high:
            middle = (low + high + 1) // 2
            fit = fits(counts + self._counts(owners[:middle], sizes[:middle]))
            low, high = (middle, high) if fit else (low, middle - 1)
        return first, low

    def _longest(self, counts: np.ndarray, owners: np.ndarray, sizes: np.ndarray, fits: Fits) -> int:
        """How many of the first chunks still fit: doubled until they do not, then halved."""

        def fit(number: int) -> bool:
            return fits(counts + self._counts(owners[:number], sizes[:number]))

        low, step = 0, 1
        while low + step <= len(owners) and fit(low + step):
            low, step = low + step, 2 * step
        high = min(len(owners), low + step - 1)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fit(middle) else (low, middle - 1)
        return low

    def _counts(self, owners: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        return np.bincount(owners, weights=sizes, minlength=len(self.units)).astype(np.int64)


def looks(group: PruneGroup) -> tuple[str, int, int, int]:
    """What groups have in common that may keep equally many units."""
    return group.kind, group.units, group.least_units, group.channels


def classes_of(groups: Sequence[PruneGroup], *, uniform: bool) -> np.ndarray:
    """Numbers (G,) of the classes whose groups keep equally many units: each group is one by itself, unless `uniform`.

    Then groups of one kind are a class that have equally many units, as wide ones, and may be emptied or not alike. A
    whole block has no width, and goes by itself.
    """
    if not uniform:
        return np.arange(len(groups))
    numbers: dict[tuple[str, str, int, int, int], int] = {}
    alike = [(group.name if group.owns_tensors else "", *looks(group)) for group in groups]
    return np.array([numbers.setdefault(look, len(numbers)) for look in alike])
