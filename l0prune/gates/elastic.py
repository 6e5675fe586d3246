"""A controller for every size between two ends: sizes take turns over the steps, and one order of the units serves all.

Legend: N units of all groups.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from l0prune.config import ControllerConfig, ElasticConfig
from l0prune.errors import ConfigError
from l0prune.gates.gates import Gates
from l0prune.gates.projected import ProjectedController

_TURNS = 4
"""Steps with one size each in which the smallest and the largest come once, with others between them."""
_GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it, modulo 1, fill [0, 1] evenly, however many there are: no draw that a resumed run must repeat."""


class ElasticController(ProjectedController):
    """The order of the projected controller, learned and trained at sizes that change from step to step.

    The target of a step is sampled between the largest size and the smallest that is asked for so far: that one falls
    over the warm-up, as any target does. What a unit is worth is thus a mean over sizes. One shift of one order gives
    the gates of each size: a network holds all smaller ones, but for the small units that fill a budget up.

    From the step on at which the order is final, gates are 0 or 1, and training sees the units that a cut to the
    sampled size keeps. Evaluation sees the smallest network.

    Args:
        target_sparsity: Share that the smallest network loses.
        elastic: The ends.
        config: Schedule and rates.
        units: Units of each group (G,).
        start: As `ProjectedController` takes it.
        prior: As `ProjectedController` takes it.
    """

    # At another size they are on the other side.
    holds_large = False

    def __init__(
        self,
        target_sparsity: float,
        elastic: ElasticConfig,
        config: ControllerConfig,
        units: Sequence[int],
        *,
        start: np.ndarray | None = None,
        prior: np.ndarray | None = None,
    ) -> None:
        super().__init__(target_sparsity, config, units, start=start, prior=prior)
        assert elastic.ends is not None
        self.elastic, self.ends = elastic, elastic.ends
        self._known: dict[int, np.ndarray] = {}

    def target_at(self, step: int) -> float:
        """Share to remove at a step; that of the smallest network once the order is final."""
        most = super().target_at(step)
        if self.settled_at(step):
            return most
        least = min(most, 1 - self.elastic.largest)
        return least + (most - least) * _turn(step)

    def sizes_at(self, step: int) -> list[float]:
        """Shares of the size that a step trains once the order is final, the smallest first."""
        low, high = self.target_sparsity, 1 - self.elastic.largest
        number = self.elastic.sizes
        turns = [_turn(step)] if number == 1 else [1.0, 0.0, *(_between(step * number + i) for i in range(2, number))]
        return [1 - (high + (low - high) * turn) for turn in turns[:number]]

    def kept_at(self, gates: Gates, left: float) -> np.ndarray:
        """Units (N,) that a cut to a share of the size keeps, bool.

        Raises:
            ConfigError: The share is not between the ends.
        """
        check_between(left, self.ends)
        budget = gates.budget_at(left)
        if not gates.settled:
            return gates.selected(self.scores(gates), budget)
        if budget not in self._known:
            self._known[budget] = gates.selected(self.scores(gates), budget)
        return self._known[budget]

    @torch.no_grad()
    def after_step(self, gates: Gates, step: int, *, skipped: Tensor | None = None) -> None:
        """Learn and move as the projected controller does; later take the next step's size."""
        super().after_step(gates, step, skipped=skipped)
        self._take(gates, step)

    def settle(self, gates: Gates, step: int) -> None:
        """Hold the order from here on; kept gates are 1."""
        before = gates.settled
        super().settle(gates, step)
        if gates.settled and not before:
            self._known = {}
            gates.rank_by(self.scores(gates))
            self._take(gates, step)

    def _take(self, gates: Gates, step: int) -> None:
        if gates.settled:
            kept = self.kept_at(gates, self.sizes_at(step)[-1])
            gates.train_at(torch.from_numpy(kept))

    def scores(self, gates: Gates) -> np.ndarray:
        """The order as numbers in (0, 1): log_alpha rounds to the same for units that lie far from the border."""
        order = self.order(gates)
        return torch.sigmoid(order - order.median()).cpu().numpy()


def check_between(left: object, ends: tuple[float, float]) -> None:
    """Raise a `ConfigError` for a share of the size that is not between the ends that were trained for."""
    low, high = ends
    number = isinstance(left, int | float) and not isinstance(left, bool)
    if not number or not low - _ROUNDING <= left <= high + _ROUNDING:  # pyright: ignore[reportOperatorIssue]
        expected = f"{low:g} to {high:g} of the size"
        raise ConfigError(
            "outside the range that was trained", got=f"{left:g}" if number else repr(left), expected=expected
        )


_ROUNDING = 1e-9
"""Of a share of the size: 1 - 0.9 is not 0.1."""


def _turn(step: int) -> float:
    """Where between the largest (0) and the smallest network (1) a step's size lies that has one size."""
    turn = step % _TURNS
    return 1.0 if turn == 0 else 0.0 if turn == _TURNS // 2 else _between(step)


def _between(number: int) -> float:
    return (number * _GOLDEN) % 1.0
