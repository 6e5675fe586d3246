"""A choice of units under several budgets: a knapsack with several constraints, and how far from the best it may be.

Scores count per unit of a reference price, so that a unit is worth score times price. With one budget on that price the
order of the scores is the best one but for the last unit. With several, the order by worth per weighted sum of prices
is: the Lagrangian relaxation, whose weights are the multipliers. Weights are searched, each gives a choice that fits,
and a bound that no choice exceeds.

Legend: N units of all groups, G groups, C classes of groups that keep equally many units, M budgets, H chunks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from l0prune.groups import PruneGroup
from l0prune.size.limits import Bounds
from l0prune.size.polynomial import SizeModel
from l0prune.size.ranking import Fits, Ranking, classes_of
from l0prune.size.selection import unmet, within
from l0prune.support import ReadByName

_ROUNDS = 10
"""Weights that are tried."""
_GAIN = 10.0
"""How fast the weight of a budget rises that is exceeded: by this power of e for twice the budget, later by less."""
_LEAST = 1e-3
"""Weight of a budget that was given up: it comes back once it binds."""
_CLOSE = 1e-4
"""Gap to the bound, as a share of it, that is not worth a further try."""


class Budget(NamedTuple):
    """One of several budgets."""

    name: str
    """Of its metric."""
    size: SizeModel
    sparsity: float
    """Share of the size to remove."""
    most: int
    """The largest size allowed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BudgetRow(ReadByName):
    """What one of several budgets says of a choice."""

    metric: str
    counts: str
    """What it counts, in words."""
    unit: float
    """How much of `size` makes one of these."""
    dense: int
    """The size of the dense network."""
    budget: int
    """The largest size allowed."""
    size: int
    """Of what was chosen."""
    binds: bool
    """Whether one more step of any group would exceed it."""
    alone: dict[str, int]
    """The size in each metric if this were the only budget."""
    alone_units: float
    """The share of units that would stay then."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Units that stay under several budgets."""

    kept: np.ndarray
    """(N,) bool"""
    counts: np.ndarray
    """(G,) kept units."""
    worth: float
    """Sum of the kept units' worth."""
    bound: float
    """No choice within the budgets is worth more."""

    @property
    def gap(self) -> float:
        """How much more the best choice may be worth, as a share of the bound."""
        return max(0.0, 1 - self.worth / self.bound) if self.bound > 0 else 0.0


def choose(
    scores: np.ndarray,
    groups: Sequence[PruneGroup],
    budgets: Sequence[Budget],
    *,
    bounds: Bounds,
    round_to: int = 1,
    uniform: bool = False,
    weights: np.ndarray | None = None,
    search: bool = True,
) -> Choice:
    """Choose the units that stay under several budgets.

    Args:
        scores: (N,) worth of each unit per unit of price; the groups' units one after the other.
        groups: The prune groups.
        budgets: What must hold of every choice.
        bounds: The fewest and the most units of each group.
        round_to: Keep as many units of each group as make a multiple of this many channels.
        uniform: Keep equally many units in all groups of a kind that have equally many.
        weights: (M,) of the budgets in the reference price; by default the first budget's alone.
        search: Whether to try other weights than these; else the order of the scores decides.

    Raises:
        TargetError: Even what must stay is above a budget.
    """
    scores = scores - min(0.0, float(scores.min(initial=0.0)))
    ranking = Ranking.of(scores, groups, classes_of(groups, uniform=uniform), round_to, bounds)
    prices = _Prices.of(budgets, ranking)
    reference = np.eye(len(budgets))[0] if weights is None else weights / weights.sum()
    limits = [(budget.size, budget.most) for budget in budgets]
    fits, price = within(limits, ranking.classes), prices.of_weights(reference)
    worth = ranking.scores * ranking.sizes * price[ranking.owners]
    best, most, bound, tried = None, -np.inf, np.inf, reference
    for number in range(_ROUNDS if search else 1):
        paid = np.maximum(prices.of_weights(tried), np.finfo(float).tiny)
        order = ranking.order(None if tried is reference else price / paid)
        counts = ranking.take(order, fits)
        if counts is None:
            raise unmet(limits, ranking)
        value = float(worth[_taken(ranking, counts)].sum())
        if value > most:
            best, most = counts, value
        bound = min(bound, prices.bound(tried, order, worth, ranking))
        if most >= (1 - _CLOSE) * bound:
            break
        # Under the weighted sum alone some budgets are exceeded and others have room: the weights were not right.
        shares = np.array([limit / size.total for size, limit in limits])
        alike = ranking.prefix(order, _weighted(limits, tried, ranking.classes))
        over = np.array([size.exact(alike[ranking.classes]) / size.total for size, _ in limits]) - shares
        # The first weights may be one budget's alone: all are heard from here on.
        tried = (tried + 1 / len(tried)) / 2 if number == 0 else np.maximum(tried, _LEAST)
        tried = tried * np.exp(np.clip(_GAIN / (1 + number / 2) * over / np.maximum(shares, _LEAST), -3, 3))
        tried = tried / tried.sum()
    assert best is not None
    return Choice(kept=ranking.kept(best), counts=best[ranking.classes], worth=most, bound=max(bound, most))


def explained(
    scores: np.ndarray,
    groups: Sequence[PruneGroup],
    budgets: Sequence[Budget],
    counts: np.ndarray,
    **settings: Any,
) -> list[BudgetRow]:
    """For each budget its size and room, whether it binds, and what it alone would allow.

    Args:
        scores: As `choose` takes them, and so are groups, budgets and further settings.
        groups: The prune groups.
        budgets: All that hold together.
        counts: (G,) units that were kept.
        settings: Of `choose`.
    """
    bounds, round_to = settings["bounds"], settings.get("round_to", 1)
    steps = np.array([group.step(round_to) for group in groups])
    classes = classes_of(groups, uniform=settings.get("uniform", False))
    total, rows = sum(group.units for group in groups), []
    for budget in budgets:
        alone = choose(scores, groups, [budget], search=False, **{**settings, "weights": None}).counts
        binds = False
        for number in range(int(classes.max()) + 1):
            mine = classes == number
            more = np.where(mine, np.minimum(counts + steps, bounds.high), counts)
            binds = binds or ((more > counts).any() and budget.size.exact(more) > budget.most)
        rows.append(
            BudgetRow(
                metric=budget.name,
                counts=budget.size.counts,
                unit=budget.size.unit,
                dense=int(budget.size.total),
                budget=int(budget.most),
                size=budget.size.exact(counts),
                binds=bool(binds),
                alone={other.name: other.size.exact(alone) for other in budgets},
                alone_units=float(alone.sum() / total),
            )
        )
    return rows


def _weighted(limits: Sequence[tuple[SizeModel, int]], weights: np.ndarray, classes: np.ndarray) -> Fits:
    """Whether the weighted sum of the sizes of kept counts is within that of the budgets."""
    factors = [weight / size.total for weight, (size, _) in zip(weights, limits, strict=True)]
    most = sum(factor * limit for factor, (_, limit) in zip(factors, limits, strict=True))

    def fits(counts: np.ndarray) -> bool:
        kept = counts[classes]
        return sum(factor * size.exact(kept) for factor, (size, _) in zip(factors, limits, strict=True)) <= most

    return fits


class _Prices(NamedTuple):
    """Linear bounds from below of the sizes, as shares of the dense ones, by class."""

    constants: np.ndarray
    """(M,)"""
    slopes: np.ndarray
    """(M, C) for one more unit in each group of a class."""
    most: np.ndarray
    """(M,) the budgets."""

    @classmethod
    def of(cls, budgets: Sequence[Budget], ranking: Ranking) -> "_Prices":
        constants, slopes = [], []
        for budget in budgets:
            constant, slope = budget.size.tangent()
            constants.append(constant / budget.size.total)
            of_classes = np.bincount(ranking.classes, weights=slope, minlength=len(ranking.units))
            slopes.append(of_classes / budget.size.total)
        most = np.array([budget.most / budget.size.total for budget in budgets])
        return cls(np.array(constants), np.array(slopes), most)

    def of_weights(self, weights: np.ndarray) -> np.ndarray:
        """(C,) the weighted sum of the prices of a unit in each group of a class."""
        return weights @ self.slopes

    def bound(self, weights: np.ndarray, order: np.ndarray, worth: np.ndarray, ranking: Ranking) -> float:
        """The most that chunks, and a part of the last, are worth within the weighted sum of the budgets.

        Args:
            weights: (M,) not negative.
            order: (H,) what must stay, then the best by worth per price.
            worth: (H,) of each chunk.
            ranking: The chunks.
        """
        price = (self.of_weights(weights)[ranking.owners] * ranking.sizes)[order]
        values, room = worth[order], float(weights @ (self.most - self.constants))
        paid = np.cumsum(price)
        whole = int(np.searchsorted(paid, room, side="right"))
        whole = max(whole, int(ranking.obligatory.sum()))
        left = room - (paid[whole - 1] if whole else 0.0)
        part = values[whole] * np.clip(left / price[whole], 0, 1) if whole < len(values) and price[whole] > 0 else 0.0
        return float(values[:whole].sum() + part)


def _taken(ranking: Ranking, counts: np.ndarray) -> np.ndarray:
    """(H,) bool, True for the chunks that these kept counts (C,) are made of."""
    # Chunks of a class stand one after the other.
    ends = np.cumsum(ranking.sizes)
    begins = np.concatenate([[0], np.cumsum(np.bincount(ranking.owners, weights=ranking.sizes, minlength=len(counts)))])
    return ends - begins[ranking.owners] <= counts[ranking.owners]
