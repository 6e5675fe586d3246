"""A controller without multipliers: gates follow what units are worth, shifted so that the size is the target's.

Legend: N units of all groups, G groups.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from l0prune.config import ControllerConfig
from l0prune.gates.gates import Gates
from l0prune.gates.size_controllers import SizeController, reading_waits
from l0prune.size import classes_of

_OPEN = 10.0
"""log_alpha of gates that are open for certain."""
_FARTHEST = 20.0
"""log_alpha of gates never lies farther from 0: beyond, float32 knows no difference."""
_CLOSE = 1e-4
"""How near the expected size comes to its target, as a share of the dense one."""
_LEAST_WORTH = 1e-12
"""Of a unit that the loss does not know of, where the mean is 1."""
_ROUNDS, _ROUNDS_ON_DEVICE = 40, 12
"""Evaluations of the size at most; on a device as many always, for a look at the gap would wait for it."""
_DECIDED_FROM, _LARGE = 0.7, 20.0
"""Share of the rise of the target from which large units hold to the side they are on, and how many times the median a
large one costs."""
_LARGEST_MOVE = 2.0
"""How far a group's slope may lie from the mean, in mean slopes, before it is cut off."""


class ProjectedController(SizeController):
    """Ranks units by how much the loss changes for each parameter that they cost, and opens as many as fit.

    The gates are deterministic in training, so that they add no noise, and their gradient passes straight through:
    dL/dz reaches units that are open, closed and in between alike. After each step

    1. the worth of each unit is the running mean of (dL/dz)^2, the diagonal of the Fisher information: half of it is
       the loss that removing the unit adds, to second order. Each step's mean over units is scaled to 1;
    2. each group has an offset that moves with the slope of the loss along the group's units near the border, for each
       parameter: -sum dL/dz / sum of costs. A diagonal does not see that units of a group stand in for one another, or
       that all heads are needed; the slope does. Few numbers are learned, each from many units, so that they need few
       steps;
    3. log_alpha = sharpness * (log(worth / cost) + offset + shift), with the one shift at which the expected size is
       the target's at this step (the secant method within a bracket).

    Gates are open while the first `look_steps` measure. The target then rises with the cube of the steps that are left
    (Zhu & Gupta 2017), so that most is removed early, and gates become sharper on the way.

    The gates are in no optimizer: whichever one trains the weights, the expected size is the target's at each step.

    Args:
        target_sparsity: The target once the warm-up is over.
        config: Schedule and rates.
        units: Units of each group (G,).
        start: (N,) importances to start from, of any scale, that rank units as they are; by default nothing is known,
            and the first `look_steps` measure.
        prior: (N,) importances to go by where the loss has no gradient, as where a student is a copy of its teacher.
    """

    has_penalty = False
    holds_large = True
    """Whether large units hold to the side that they are on, late in the rise of the target."""
    worth: Tensor
    prior: Tensor
    offsets: Tensor
    slopes: Tensor
    costs: Tensor
    shift: Tensor
    rise: Tensor
    placed: Tensor
    seen: Tensor
    bad_in_a_row: Tensor

    def __init__(
        self,
        target_sparsity: float,
        config: ControllerConfig,
        units: Sequence[int],
        *,
        start: np.ndarray | None = None,
        prior: np.ndarray | None = None,
    ) -> None:
        super().__init__(target_sparsity, config)
        total, double = sum(units), torch.float64
        self.register_buffer("worth", _scaled(start, total) if start is not None else torch.zeros(total, dtype=double))
        self.register_buffer("prior", _LEAST_WORTH * _scaled(prior, total))
        self.register_buffer("offsets", torch.zeros(len(units), dtype=double))
        self.register_buffer("slopes", torch.zeros(2, len(units), dtype=double))
        self.register_buffer("costs", torch.ones(total, dtype=double))
        self.register_buffer("shift", torch.zeros((), dtype=double))
        self.register_buffer("rise", torch.ones((), dtype=double))
        self.register_buffer("placed", torch.zeros(total, dtype=double))
        # A start counts as much as all that the running mean remembers.
        self.register_buffer("seen", torch.tensor(0.0 if start is None else 1 / (1 - config.memory), dtype=double))
        self.register_buffer("bad_in_a_row", torch.zeros((), dtype=double))
        # A short warm-up must not be all looking, and then ask for the whole target at once.
        self._look = 0 if start is not None else min(config.look_steps, config.warmup_steps // 2)
        self._owner = torch.arange(len(units)).repeat_interleave(torch.tensor(list(units)))

    def trained(self, gates: Gates) -> list[nn.Parameter]:
        """Nothing: it moves the gates itself."""
        return []

    def target_at(self, step: int) -> float:
        """The target at a step: 0 while looking, then up to its end by the cube of what is left of the warm-up."""
        return self.target_sparsity * (1 - (1 - self._share(step)) ** 3)

    def penalty(self, sparsity: Tensor, step: int) -> Tensor:
        """Zero: the size is met without one."""
        return torch.zeros((), dtype=torch.float64, device=self.worth.device)

    def steps_without_gradient(self) -> int:
        """Steps in a row in which the gates had no finite gradient."""
        return int(self.bad_in_a_row)

    def begin(self, gates: Gates) -> None:
        """Open the gates, and let their gradient pass straight through."""
        gates.straight_through = True
        self._price(gates)
        for known in (self.worth, self.prior):
            # They rank units as they are: that a unit is large is in them.
            known.mul_(self.costs / self.costs.mean())
        self._move(gates, 0)

    @torch.no_grad()
    def after_step(self, gates: Gates, step: int, *, skipped: Tensor | None = None) -> None:
        """Learn from the gates' gradient, and move them to the next step's target."""
        gradient = gates.log_alpha.grad
        if gates.settled or self.settled_at(step - 1):
            # An optimizer of all parameters may have moved them.
            gates.log_alpha.copy_(self.placed)
            gates.log_alpha.grad = None
            self.settle(gates, step)
            return
        if gradient is None:
            self.bad_in_a_row.add_(1)
        else:
            self._learn(gradient.to(self.worth), step, skipped)
            gates.log_alpha.grad = None
        self._move(gates, step)
        self.settle(gates, step)

    def shrink(self, units: np.ndarray, groups: Sequence[int]) -> None:
        """Forget units and groups that are gone for good."""
        index = torch.from_numpy(np.asarray(units)).to(self.worth.device)
        numbers = torch.tensor(list(groups), device=self.worth.device)
        for name in ("worth", "prior", "costs", "placed"):
            setattr(self, name, getattr(self, name)[index])
        self.offsets, self.slopes = self.offsets[numbers], self.slopes[:, numbers]
        place = {int(old): new for new, old in enumerate(groups)}
        owner = self._owner[index.to(self._owner.device)]
        self._owner = torch.tensor([place[int(g)] for g in owner.tolist()], device=owner.device)

    def order(self, gates: Gates) -> Tensor:
        """What ranks the units (N,), the highest first, with what is tied and what limits hold; float64."""
        ranking = self._ranking()
        if gates.config.uniform:
            ranking = _tied(ranking, gates)
        return gates.held_within(ranking)

    def _share(self, step: int) -> float:
        """How much of the rise of the target is over at a step, in [0, 1]."""
        rise = max(1, self.config.warmup_steps - self._look)
        return min(1.0, max(0.0, (step - self._look) / rise)) if step < self.config.warmup_steps else 1.0

    def _learn(self, gradient: Tensor, step: int, skipped: Tensor | None) -> None:
        good = torch.isfinite(gradient).all().double()
        good = good if skipped is None else good * (1 - skipped.double())
        gradient = torch.where(good > 0, gradient, torch.zeros_like(gradient))
        self.bad_in_a_row.copy_((self.bad_in_a_row + 1) * (1 - good))
        # The first steps count alike, later ones fade.
        seen = self.seen + good
        new = good * torch.maximum(1 / seen.clamp_min(1), torch.full_like(seen, 1 - self.config.memory))
        self.seen.copy_(seen)
        squares = gradient**2
        # Each step counts alike: a loss that is rarely large would be heard in few of them.
        self.worth.lerp_(squares / squares.mean().clamp_min(torch.finfo(squares.dtype).tiny), new)
        if self._share(step - 1) > 0 and self.target_at(step - 1) > 0:
            self._learn_offsets(gradient, good)

    def _learn_offsets(self, gradient: Tensor, good: Tensor) -> None:
        near = torch.sigmoid(self._ranking() + self.shift)
        near = near * (1 - near)
        gains = torch.stack([-gradient * near, self.costs * near])
        sums = torch.zeros_like(self.slopes).index_add_(1, self._owned(), gains)
        self.slopes.lerp_(sums, good * (1 - self.config.memory))
        gained, paid = self.slopes
        slope = gained / paid.clamp_min(torch.finfo(paid.dtype).tiny)
        mean = gained.sum() / paid.sum().clamp_min(torch.finfo(paid.dtype).tiny)
        scale = slope.abs().mean().clamp_min(torch.finfo(paid.dtype).tiny)
        move = ((slope - mean) / scale).clamp(-_LARGEST_MOVE, _LARGEST_MOVE)
        self.offsets.add_(good * self.config.group_rate * move)

    def _ranking(self) -> Tensor:
        """log(worth / cost) + offset of each unit, (N,)."""
        least = self.costs.mean() * 1e-3
        worth = (self.worth + self.prior).log() - self.costs.clamp_min(least).log()
        return worth + self.offsets[self._owned()]

    def _owned(self) -> Tensor:
        if self._owner.device != self.worth.device:
            self._owner = self._owner.to(self.worth.device)
        return self._owner

    @torch.no_grad()
    def _move(self, gates: Gates, step: int) -> None:
        """Set the gates for the target at a step."""
        ranking, target = self.order(gates), self.target_at(step)
        if self.holds_large and self._share(step) > _DECIDED_FROM:
            # A unit as large as many others must not wait at the border for the cut to decide.
            large = self.costs > _LARGE * self.costs.median()
            ranking = ranking + large * torch.sign(self.placed)
        if target <= 0:
            # The ranking shows in the last digits, so that a cut at this moment goes by it.
            located = _OPEN + torch.tanh((ranking - ranking.median()) / 10)
        else:
            low, high = self.config.sharpness, self.config.final_sharpness
            sharpness = low * (high / low) ** self._share(step)
            self._project(gates, ranking, sharpness, 1 - target)
            located = _located(ranking + self.shift, sharpness)
        self.placed.copy_(located)
        gates.log_alpha.copy_(located)

    def _project(self, gates: Gates, ranking: Tensor, sharpness: float, left: float) -> None:
        """Find the shift at which the expected size is `left`, a share of the dense one.

        The secant method, from the last step's shift and slope, within a bracket that is halved where it leaves it.
        """
        opened = gates.distribution.open_shift
        reach = 2 * _FARTHEST / sharpness
        low, high = -ranking.max() - reach, -ranking.min() + reach
        shift, rise = torch.minimum(torch.maximum(self.shift, low), high), self.rise.clone()
        before: tuple[Tensor, Tensor] | None = None
        on_device = reading_waits(shift)
        for _ in range(_ROUNDS_ON_DEVICE if on_device else _ROUNDS):
            kept = torch.sigmoid(_located(ranking + shift, sharpness) + opened)
            gap = self._gap(gates, kept, left)
            if not on_device and abs(float(gap)) < _CLOSE:
                break
            if before is not None:
                slope = (gap - before[1]) / (shift - before[0])
                rise = torch.where(slope > 0, slope, rise)  # NaN, where nothing moved, is not above 0.
            before = shift, gap
            low, high = torch.where(gap > 0, low, shift), torch.where(gap > 0, shift, high)
            tried = shift - gap / rise
            inside = (tried > low) & (tried < high)
            shift = torch.where(inside, tried, (low + high) / 2)
        self.shift.copy_(shift)
        self.rise.copy_(rise)

    def _gap(self, gates: Gates, kept: Tensor, left: float) -> Tensor:
        """By how much the expected size is above `left`, as a share of the dense one."""
        return gates.size_model.expected(kept) / gates.size_model.total - left

    def _price(self, gates: Gates) -> None:
        """What each unit costs while all are open.

        Costs stay what they are in the dense network. Those of the moment would run away: a unit is cheap where its
        neighbours have gone, so that of two layers in a row one would keep all of its units and the other a single one.
        """
        kept = torch.ones_like(self.costs).requires_grad_()
        with torch.enable_grad():
            (price,) = torch.autograd.grad(gates.size_model.priced(kept) / gates.size_model.total, kept)
        self.costs.copy_(price)


def _tied(ranking: Tensor, gates: Gates) -> Tensor:
    """The ranking (N,) with one mean in the place of the k-th best of groups that keep equally many."""
    classes, rows = classes_of(gates.groups, uniform=True), list(ranking.split([group.units for group in gates.groups]))
    for number in range(int(classes.max()) + 1):
        members = np.flatnonzero(classes == number).tolist()
        own = torch.stack([rows[g] for g in members])
        ordered, order = own.sort(dim=1)
        own = torch.zeros_like(own).scatter(1, order, ordered.mean(0).expand_as(own))
        for g, row in zip(members, own, strict=True):
            rows[g] = row
    return torch.cat(rows)


def _located(ranking: Tensor, sharpness: float) -> Tensor:
    """log_alpha, which keeps the order of the ranking and stays near enough to 0 for float32 to tell it."""
    return _FARTHEST * torch.tanh(sharpness * ranking / _FARTHEST)


def _scaled(importances: np.ndarray | None, units: int) -> Tensor:
    """Importances (N,) with a mean of 1, all of them above 0."""
    if importances is None:
        return torch.ones(units, dtype=torch.float64)
    given = torch.as_tensor(importances, dtype=torch.float64)
    # An importance may be negative: what counts is the order.
    given = given - given.min().clamp_max(0)
    return given / given.mean().clamp_min(torch.finfo(given.dtype).tiny) + 1e-9
