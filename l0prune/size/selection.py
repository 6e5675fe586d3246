"""Which units stay: the highest keep probabilities whose exact size meets the budget from below.

Legend: N units of all groups, G groups.
"""

from collections.abc import Callable, Sequence
from numbers import Real

import numpy as np

from l0prune.errors import TargetError
from l0prune.groups import PruneGroup
from l0prune.size.polynomial import SizeModel


def budget_for(size_model: SizeModel, target_sparsity: float, *, round_to: int = 1) -> int:
    """The largest size that a target sparsity allows.

    Args:
        size_model: The exact size.
        target_sparsity: Share of the size to remove.
        round_to: Widths stay multiples of this.

    Raises:
        TargetError: The target is no number, or lies outside (0, 1) or below the floor of what can be removed.
    """
    if not isinstance(target_sparsity, Real):
        raise TargetError("target sparsity is not a number", got=repr(target_sparsity), expected="between 0 and 1")
    if not 0 < target_sparsity < 1:
        raise TargetError("target sparsity out of range", got=target_sparsity, expected="between 0 and 1, exclusive")
    total, floor = size_model.total, size_model.floor_for(round_to)
    # Rounding guards against 1 - 0.9 = 0.09999999999999998.
    budget = int(np.floor(round(total * (1 - target_sparsity), 6)))
    if budget < floor:
        # Rounded down, so that the advice itself is feasible.
        most = np.floor((1 - floor / total) * 10_000) / 10_000
        raise TargetError(
            "target sparsity is more than can be removed",
            got=target_sparsity,
            expected=f"at most {most:.4f}",
            hint=f"{size_model.shown(floor)} of {size_model.shown(total)} {size_model.counts} belong to no unit or to "
            f"a last one that must stay: lower the target{' or `round_to`' if round_to > 1 else ''} or prune more "
            "kinds of unit",
        )
    return budget


def select(
    keep_probabilities: np.ndarray,
    groups: Sequence[PruneGroup],
    size_model: SizeModel,
    budget: int,
    *,
    round_to: int = 1,
    uniform: bool = False,
) -> np.ndarray:
    """Choose the kept units.

    Units are taken in order of keep probability while they fit; once the next one does not, smaller units further down
    still may, so that the gap to the budget ends below the smallest unit.

    Args:
        keep_probabilities: (N,) the groups' units one after the other.
        groups: The prune groups.
        size_model: Their exact size.
        budget: The largest size allowed.
        round_to: Keep as many units of each group as make a multiple of this many channels (or all of them).
        uniform: Keep equally many units in all groups of a kind that have equally many.

    Returns:
        (N,) bool, True for kept units.

    Raises:
        TargetError: With `round_to`, even the smallest choice is above the budget.
    """
    classes = classes_of(groups, uniform=uniform)
    chunks, owners = _ranked_chunks(keep_probabilities, groups, classes, round_to)
    # Of each group of a class.
    sizes = np.array([len(chunk) for chunk in chunks]) // np.bincount(classes)[owners]

    def size_of(kept: np.ndarray) -> int:
        return size_model.exact(kept[classes])

    def counts(first: int) -> np.ndarray:
        return np.bincount(owners[:first], weights=sizes[:first], minlength=classes.max() + 1).astype(np.int64)

    # What must stay comes first; the exact size grows with every chunk after it.
    low, high = len(np.unique(classes[size_model.least > 0])), len(chunks)
    if size_of(counts(low)) > budget:
        smallest = size_of(counts(low))
        raise TargetError("no plan meets the budget", got=f"a smallest size of {smallest:,}", expected=f"{budget:,}")
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size_of(counts(middle)) <= budget else (low, middle - 1)
    taken = list(range(low))
    taken += _fill(counts(low), owners[low:], sizes[low:], size_of, budget, first=low)
    kept = np.zeros(len(keep_probabilities), dtype=bool)
    if taken:
        kept[np.concatenate([chunks[i] for i in taken])] = True
    return kept


def classes_of(groups: Sequence[PruneGroup], *, uniform: bool) -> np.ndarray:
    """Numbers (G,) of the classes whose groups keep equally many units: each group is one by itself, unless `uniform`.

    Then groups of one kind are a class that have equally many units, as wide ones, and may be emptied or not alike. A
    whole block has no width, and goes by itself.
    """
    if not uniform:
        return np.arange(len(groups))
    numbers: dict[tuple[str, str, int, int, int], int] = {}
    looks = [(group.name if group.owns_tensors else "", *_looks(group)) for group in groups]
    return np.array([numbers.setdefault(look, len(numbers)) for look in looks])


def _looks(group: PruneGroup) -> tuple[str, int, int, int]:
    return group.kind, group.units, group.least_units, group.channels


def _ranked_chunks(
    keep_probabilities: np.ndarray, groups: Sequence[PruneGroup], classes: np.ndarray, round_to: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """Chunks of units, `round_to` channels of each group, best first, with their classes; obligatory ones lead."""
    chunks, owners, scores, obligatory = [], [], [], []
    ends = np.cumsum([group.units for group in groups])
    for number in range(classes.max() + 1):
        members = np.flatnonzero(classes == number)
        group = groups[members[0]]
        starts = ends[members, None] - group.units
        probabilities = keep_probabilities[starts + np.arange(group.units)]
        order, step = np.argsort(-probabilities, axis=1, kind="stable"), group.step(round_to)
        ordered = np.take_along_axis(probabilities, order, axis=1)
        worst = np.inf
        for first in range(0, group.units, step):
            chunks.append((starts + order[:, first : first + step]).ravel())
            owners.append(number)
            # Rounding must not lift the mean of a later chunk above an earlier one's.
            worst = min(worst, ordered[:, first : first + step].mean())
            scores.append(worst)
            obligatory.append(first == 0 and group.least_units > 0)
    ranking = np.lexsort((np.arange(len(chunks)), -np.array(scores), ~np.array(obligatory)))
    return [chunks[i] for i in ranking], np.array(owners)[ranking]


def _fill(
    kept: np.ndarray,
    owners: np.ndarray,
    sizes: np.ndarray,
    size_of: Callable[[np.ndarray], int],
    budget: int,
    *,
    first: int,
) -> list[int]:
    """Indices, counted from `first`, of later chunks that still fit, taken in order."""
    taken, closed = [], set()
    for offset, (g, size) in enumerate(zip(owners, sizes, strict=True)):
        if g in closed:
            continue
        kept[g] += size
        if size_of(kept) <= budget:
            taken.append(first + offset)
        else:
            kept[g] -= size
            # Room only shrinks from here and a class's next chunk costs as much: it will not fit either.
            closed.add(g)
            if len(closed) == len(kept):
                break
    return taken


def split_by_group(flat: np.ndarray, groups: Sequence[PruneGroup]) -> dict[str, np.ndarray]:
    """Split a flat (N,) vector into one vector per group, by name."""
    ends = np.cumsum([group.units for group in groups])
    return dict(zip([group.name for group in groups], np.split(flat, ends[:-1]), strict=True))


def kept_indices(kept: np.ndarray, groups: Sequence[PruneGroup]) -> dict[str, tuple[int, ...]]:
    """Kept units by group name from a flat (N,) bool vector."""
    return {
        name: tuple(int(i) for i in np.flatnonzero(values)) for name, values in split_by_group(kept, groups).items()
    }
