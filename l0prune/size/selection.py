"""Which units stay: the highest keep probabilities whose exact size meets the budget from below.

Legend: N units of all groups, G groups.
"""

from collections.abc import Sequence
from numbers import Real

import numpy as np

from l0prune.errors import TargetError
from l0prune.groups import PruneGroup
from l0prune.size.limits import Bounds, bounds_of
from l0prune.size.polynomial import SizeModel
from l0prune.size.ranking import Fits, Ranking, classes_of


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
    bounds: Bounds | None = None,
    more: Sequence[tuple[SizeModel, int]] = (),
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
        bounds: The fewest and the most units of each group, as `bounds_of` gives them; by default what removal allows.
        more: Further sizes, and the largest that is allowed of each.

    Returns:
        (N,) bool, True for kept units.

    Raises:
        TargetError: With `round_to` or `bounds`, even the smallest choice is above a budget.
    """
    ranking = Ranking.of(
        keep_probabilities,
        groups,
        classes_of(groups, uniform=uniform),
        round_to,
        bounds or bounds_of(groups, {}, round_to),
    )
    counts = ranking.take(ranking.order(), within([(size_model, budget), *more], ranking.classes))
    if counts is None:
        raise unmet([(size_model, budget), *more], ranking)
    return ranking.kept(counts)


def within(budgets: Sequence[tuple[SizeModel, int]], classes: np.ndarray) -> Fits:
    """Whether kept counts of classes are within every budget."""

    def fits(counts: np.ndarray) -> bool:
        kept = counts[classes]
        return all(size.exact(kept) <= most for size, most in budgets)

    return fits


def unmet(budgets: Sequence[tuple[SizeModel, int]], ranking: Ranking) -> TargetError:
    """What to say where even what must stay is above a budget."""
    stays = np.bincount(
        ranking.owners, weights=ranking.sizes * ranking.obligatory, minlength=len(ranking.units)
    ).astype(np.int64)[ranking.classes]
    found = [(size, size.exact(stays), most) for size, most in budgets if size.exact(stays) > most]
    got = ", ".join(f"{size.shown(smallest)} {size.counts}" for size, smallest, _ in found)
    expected = ", ".join(f"{size.shown(most)} or less" for size, _, most in found)
    return TargetError("what must stay is above the budget", got=got, expected=expected)


def split_by_group(flat: np.ndarray, groups: Sequence[PruneGroup]) -> dict[str, np.ndarray]:
    """Split a flat (N,) vector into one vector per group, by name."""
    ends = np.cumsum([group.units for group in groups])
    return dict(zip([group.name for group in groups], np.split(flat, ends[:-1]), strict=True))


def kept_indices(kept: np.ndarray, groups: Sequence[PruneGroup]) -> dict[str, tuple[int, ...]]:
    """Kept units by group name from a flat (N,) bool vector."""
    return {
        name: tuple(int(i) for i in np.flatnonzero(values)) for name, values in split_by_group(kept, groups).items()
    }
