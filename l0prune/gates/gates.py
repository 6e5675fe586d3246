"""The gates of all groups: one flat vector of locations, sampled in training and decided in evaluation.

Legend: N units of all groups, one after the other; z (N,) gate values.
"""

import copy
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from l0prune.config import GateConfig
from l0prune.gates.hard_concrete import HardConcrete
from l0prune.groups import PruneGroup
from l0prune.size import Bounds, Budget, BudgetRow, SizeModel, bounds_of, budget_for, choose, explained, select
from l0prune.support import in_backward, in_checkpoint

_F = TypeVar("_F", bound=Callable)

_HELD = 2.0
"""How far units that limits decide on lie beyond all others, in logarithms of worth."""
_THROUGH = 1e-3
"""Share of dL/dz that passes straight through."""


def _eager(function: _F) -> _F:
    """Keep torch.compile out of a function."""
    return torch.compiler.disable(function)  # type: ignore[return-value]


class Gates(nn.Module):
    """The gates of all groups.

    Args:
        groups: The prune groups.
        size_model: Their size.
        budget: The largest size that the deterministic selection may have.
        config: Distribution and starting values.
        reference: Gives the device, and the dtype if that is wider than float32.
        more: Further budgets, which the selection meets too.
    """

    weights: Tensor
    """(1 + further budgets,) what each budget weighs in what a unit costs."""

    def __init__(
        self,
        groups: Sequence[PruneGroup],
        size_model: SizeModel,
        budget: int,
        config: GateConfig,
        reference: Tensor,
        more: Sequence[Budget] = (),
    ) -> None:
        super().__init__()
        self.more = tuple(more)
        bounds = bounds_of(groups, config.limits, config.multiple)
        self._limits = {group.name: (int(low), int(high)) for group, low, high in zip(groups, *bounds, strict=True)}
        if more:
            # How much each budget's price counts: what brings the sizes to their targets may move it.
            self.register_buffer("weights", torch.ones(1 + len(more), dtype=torch.float64) / (1 + len(more)))
        self.groups, self.size_model, self.budget, self.config = tuple(groups), size_model, budget, config
        self.distribution = HardConcrete(temperature=config.temperature, low=config.low, high=config.high)
        starts = [self.distribution.location(config.drop_rate_of(group.kind)) for group in groups]
        units = torch.tensor([group.units for group in groups])
        start = torch.tensor(starts, dtype=torch.float64).repeat_interleave(units)
        # A little noise breaks ties between units that begin alike.
        start = start + 0.01 * torch.randn(len(start), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        # Half precision would swallow the steps of an optimizer.
        dtype = torch.promote_types(reference.dtype, torch.float32)
        self.log_alpha = nn.Parameter(start.to(device=reference.device, dtype=dtype))
        self.straight_through = False
        """Gates as they are on average, without noise, whose gradient dL/dz passes straight to log_alpha."""
        self.settled = False
        """The choice is final: training sees the deterministic gates too."""
        self._held = False
        self._trained_at: Tensor | None = None
        self._units = [group.units for group in groups]
        self._sampled: tuple[Tensor, ...] | None = None
        self._noise: Tensor | None = None
        # Not empty while the last draw's gradient is still to come.
        self._waiting: list[bool] = []
        self._model: weakref.ref[nn.Module] | None = None
        self._decided: tuple[Tensor, tuple[Tensor, ...]] | None = None
        self._fixed: tuple[Tensor, ...] | None = None
        self._as_trained = False
        self._ranking: np.ndarray | None = None

    def keep_probabilities(self) -> Tensor:
        """P(z != 0), (N,), differentiable."""
        return self.distribution.keep_probability(self.log_alpha)

    def sample(self) -> None:
        """Draw new gates for the coming forward passes in training mode."""
        self._noise = None if self.straight_through or self.settled else self.distribution.noise(self.log_alpha)
        z = self._drawn()
        # What is drawn inside a backward pass recomputes a draw, whose gradient is not its own to wait for.
        self._waiting = waiting = [True] if z.requires_grad and not in_backward() else []
        if waiting and not torch.compiler.is_compiling():
            # The hook holds neither the gates nor the draw: they would hold each other for ever.
            z.register_hook(lambda _: waiting.clear())
        self._sampled = z.split(self._units)

    def _drawn(self) -> Tensor:
        """Gate values (N,) of the present draw."""
        if self._noise is not None:
            return self.distribution.transform(self.log_alpha, self._noise)
        if self.settled and self._trained_at is not None:
            values = self._trained_at
        elif self.settled:
            # A comparison would wait for the device at each step.
            known = self._decided if self._held else None
            values = torch.cat(self.decide() if known is None else known[1])
        else:
            values = self.distribution.transform(self.log_alpha.detach(), torch.full_like(self.log_alpha, 0.5))
        # A small share of the gradient: clipping the norm of all gradients must not go by the gates'.
        return values + _THROUGH * (self.log_alpha - self.log_alpha.detach())

    def draw(self) -> None:
        """Draw new gates, unless forward passes with the last ones still wait for their backward pass.

        Passes that share a backward pass share a draw: a checkpointed layer, which runs again in the middle of it, must
        find the gates that it had. A model that is checkpointed as a whole draws them again itself.
        """
        if not self._waiting or torch.compiler.is_compiling() or in_backward() or in_checkpoint():
            self.sample()

    def forget_sample(self) -> None:
        """Draw anew at the next forward pass in training mode, whichever part of the model it runs."""
        self._sampled, self._noise, self._waiting = None, None, []

    def select(self) -> np.ndarray:
        """The deterministic choice: (N,) bool, True for kept units."""
        if self._ranking is not None:
            return self.selected(self._ranking, self.budget)
        # In float32 many a keep probability rounds to 1; log_alpha still tells them apart.
        scores = torch.sigmoid(self.log_alpha.detach().double() + self.distribution.open_shift).cpu().numpy()
        return self.selected(scores, self.budget)

    def budget_at(self, left: float) -> int:
        """The largest size that a share of the dense one allows.

        Raises:
            TargetError: It is less than removal can leave.
        """
        if left >= 1:
            return self.size_model.total
        return budget_for(self.size_model, 1 - left, round_to=self.config.multiple)

    def selected(self, scores: np.ndarray, budget: int) -> np.ndarray:
        """Units (N,) that scores (N,) keep under a budget of the leading size, bool."""
        round_to, uniform = self.config.multiple, self.config.uniform
        if self.more and self._ranking is not None:
            # Gates have learned an order under all budgets, importances have not.
            return choose(scores, self.groups, self.budgets, **self._settings()).kept
        more = [(budget.size, budget.most) for budget in self.more]
        return select(
            scores,
            self.groups,
            self.size_model,
            budget,
            round_to=round_to,
            uniform=uniform,
            bounds=self.bounds,
            more=more,
        )

    @property
    def bounds(self) -> Bounds:
        """The fewest and the most units that each group keeps."""
        pairs = [self._limits[group.name] for group in self.groups]
        low, high = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        return Bounds(low, np.minimum(high, [group.units for group in self.groups]))

    def held_within(self, ranking: Tensor) -> Tensor:
        """A ranking (N,) in which each group's best units lead that must stay, and those come last that must go."""
        if not self.config.limits:
            return ranking
        rows, beyond = list(ranking.split(self._units)), ranking.max() - ranking.min() + _HELD
        for g, group in enumerate(self.groups):
            low, high = self._limits[group.name]
            order = rows[g].argsort(descending=True, stable=True)
            held = torch.zeros_like(rows[g])
            held[order[:low]] = beyond
            held[order[high:]] = -beyond
            rows[g] = rows[g] + held
        return torch.cat(rows)

    @property
    def budgets(self) -> list[Budget]:
        """All budgets, the leading one first, where there are several."""
        sparsity = 1 - self.budget / self.size_model.total
        return [Budget(self.size_model.counts, self.size_model, sparsity, self.budget), *self.more]

    def _settings(self) -> dict[str, Any]:
        """How units are chosen, beside scores and budgets."""
        return {"bounds": self.bounds, "round_to": self.config.multiple, "uniform": self.config.uniform}

    def explained(self, names: Sequence[str]) -> tuple[list[BudgetRow], float]:
        """What each budget says of the selection, and how far the selection may be from the best one.

        Args:
            names: Of the budgets' metrics.
        """
        budgets = [budget._replace(name=name) for budget, name in zip(self.budgets, names, strict=True)]
        scores, trained, settings = self._ranking, self._ranking is None, self._settings()
        if scores is None:
            scores = torch.sigmoid(self.log_alpha.detach().double() + self.distribution.open_shift).cpu().numpy()
        weights = self.weights.cpu().numpy() if trained and self.more else None
        found = choose(scores, self.groups, budgets, **settings, weights=weights, search=not trained)
        return explained(scores, self.groups, budgets, found.counts, **settings), found.gap

    def forced(self) -> int:
        """Units on which the selection decides otherwise than their gates: open ones removed, closed ones kept."""
        median = self.distribution.transform(self.log_alpha.detach(), torch.full_like(self.log_alpha, 0.5))
        return int(((median >= 0.5).cpu().numpy() != self.select()).sum())

    @_eager
    def decide(self) -> tuple[Tensor, ...]:
        """Deterministic gate values by group: 0 for closed units, the configured value for kept ones."""
        now = self.log_alpha.detach()
        # Compared by value: a fused optimizer writes without counting up the tensor's version.
        if self._decided is None or not _same(self._decided[0], now):
            kept = torch.from_numpy(self.select()).to(now.device)
            # What is kept for other passes must not be of `torch.inference_mode`, which allows no gradients ever after.
            with torch.inference_mode(False), torch.no_grad():
                now = now.clone()
                # Above 0 even where it underflows: a value of 0 stands for a closed unit.
                value = getattr(self.distribution, self.config.mask_value)(now).clamp_min(torch.finfo(now.dtype).tiny)
                if self._ranking is not None:
                    value = torch.ones_like(now)
                self._decided = (now, (value * kept.clone()).split(self._units))
        return self._decided[1]

    def follow(self, model: nn.Module) -> None:
        """Go by this model's mode, whatever mode its parts are in: batch norms in `eval()`, say, to freeze them."""
        # A reference of its own would keep the model alive in a circle.
        self._model = weakref.ref(model)

    def of(self, g: int, training: bool) -> Tensor:
        """Gate values (units,) of group number `g`: the sample in training, else the deterministic choice.

        Args:
            g: The group's number.
            training: The mode of the part that asks; that of the model they follow counts if there is one.
        """
        return self.values(training)[g]

    def values(self, training: bool = True) -> tuple[Tensor, ...]:
        """Gate values (units,) of each group, as `of` gives them; parts of one vector (N,)."""
        model = self.followed()
        training = self._as_trained or (training if model is None else model.training)
        if self._fixed is not None:
            return self._fixed
        if not training:
            if torch.compiler.is_compiling() and self._decided is not None:
                return self._decided[1]
            return self.decide()
        if self._sampled is None or self._used_up():
            self.sample()
        assert self._sampled is not None
        if torch.is_grad_enabled() and in_backward() and not in_checkpoint():
            # A reentrant checkpoint runs a backward pass of its own, which must not use up the graph of the others.
            return self._drawn().split(self._units)
        return self._sampled

    def hold(self, values: tuple[Tensor, ...]) -> bool:
        """Whether `values`, which this gave earlier in the same pass of the model, are still what it would give."""
        if self._fixed is not None:
            return values is self._fixed
        model = self.followed()
        if model is not None and not model.training and not self._as_trained:
            return self._decided is not None and values is self._decided[1]
        return values is self._sampled and (bool(self._waiting) or not self._used_up())

    def followed(self) -> nn.Module | None:
        """The model whose mode they go by."""
        return self._model() if self._model is not None else None

    def _used_up(self) -> bool:
        """Whether a pass that wants gradients finds a draw that has had its own, or can have none."""
        if torch.compiler.is_compiling() or self._waiting or in_backward():
            return False
        return torch.is_grad_enabled() and self.log_alpha.requires_grad

    def begin_pass(self, model: nn.Module) -> tuple[Tensor, ...] | None:
        """Bring the choice up to date where a pass of the model will take it: compiled layers take it as it is.

        Returns:
            The gate values (units,) of each group in this pass; None where they are not the choice.
        """
        chosen = not (model.training or self._as_trained or self._fixed is not None)
        return self.decide() if chosen and self.groups else None

    def settle(self, *, held: bool = False) -> None:
        """Let training see the deterministic gates from now on.

        Args:
            held: Whether nothing moves log_alpha between two draws any more.
        """
        self.settled, self._held, self._decided = True, held, None
        self.forget_sample()

    def allow(self, budget: int, number: int = 0) -> None:
        """Select under another budget from now on; by its number where there are several."""
        self._decided = None
        if number == 0:
            self.budget = budget
        else:
            more = list(self.more)
            more[number - 1] = more[number - 1]._replace(most=budget)
            self.more = tuple(more)

    def rank_by(self, scores: np.ndarray) -> None:
        """Select by other scores (N,) than the gates' own from now on; a kept gate's value is 1."""
        self._ranking, self._decided = scores, None

    def train_at(self, kept: Tensor) -> None:
        """Let training see gates of 1 for some units (N,) and of 0 for the others, once the choice is final."""
        self._trained_at = kept.to(self.log_alpha)
        self.forget_sample()

    def shrink(
        self,
        kept: np.ndarray,
        groups: Sequence[PruneGroup],
        size_model: SizeModel,
        more: Sequence[SizeModel] = (),
    ) -> None:
        """Forget units that are gone for good.

        Args:
            kept: (N,) bool, True for units that are left.
            groups: What is left of the groups, in their order.
            size_model: Their size.
            more: Their sizes under the further budgets.
        """
        self.groups, self.size_model = tuple(groups), size_model
        self.more = tuple(budget._replace(size=size) for budget, size in zip(self.more, more, strict=True))
        self._units = [group.units for group in groups]
        index = torch.from_numpy(np.flatnonzero(kept)).to(self.log_alpha.device)
        self.log_alpha = nn.Parameter(self.log_alpha.detach()[index])
        self._decided = None
        self.forget_sample()

    @contextmanager
    def fixed(self, values: Tensor) -> Iterator[None]:
        """Hold all gates at `values` (N,) meanwhile."""
        before, self._fixed = self._fixed, values.to(self.log_alpha).split(self._units)
        try:
            yield
        finally:
            self._fixed = before

    @contextmanager
    def as_trained(self) -> Iterator[None]:
        """Give the gates of training meanwhile, in evaluation mode too: what a cut is compared with."""
        self._as_trained = True
        self.forget_sample()
        try:
            yield
        finally:
            self._as_trained = False
            self.forget_sample()

    def __getstate__(self) -> dict[str, Any]:
        """Without what was computed, and with the model itself in the place of a reference that does not hold it."""
        computed = {"_sampled": None, "_noise": None, "_waiting": [], "_decided": None}
        return {**self.__dict__, **computed, "_model": self.followed()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what `__getstate__` gave."""
        super().__setstate__({**state, "_model": None})
        if state["_model"] is not None:
            self.follow(state["_model"])

    def __deepcopy__(self, memo: dict) -> "Gates":
        """A copy without the last sample: its autograd graph cannot be copied."""
        (sampled, self._sampled), (waiting, self._waiting) = (self._sampled, None), (self._waiting, [])
        try:
            new = self.__class__.__new__(self.__class__)
            memo[id(self)] = new
            new.__dict__.update({key: copy.deepcopy(value, memo) for key, value in self.__dict__.items()})
            new._decided = None
            model = self._model() if self._model is not None else None
            # The copy's gates follow the copied model, if it is that which is being copied.
            new._model = weakref.ref(memo[id(model)]) if id(model) in memo else None
            return new
        finally:
            self._sampled, self._waiting = sampled, waiting


def _same(one: Tensor, other: Tensor) -> bool:
    return one.device == other.device and one.dtype == other.dtype and torch.equal(one, other)
