"""Size controllers for several targets at once: every expected size is at most its own.

Legend: N units of all groups, G groups, M targets, the leading one first.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from l0prune.config import ControllerConfig
from l0prune.gates.gates import Gates
from l0prune.gates.projected import ProjectedController
from l0prune.gates.size_controllers import AugmentedLagrangian, ProportionalIntegral, SizeController

_GAIN = 3.0
"""How fast the weight of a target with room falls: by this power of e for a room of all that may be left."""
_FORGOTTEN = 0.95
"""What a step leaves of the multiplier of a target that is not active."""
_LEAST = 1e-4
"""Weight of a target that was given up: it comes back once it binds."""


class SeveralProjected(ProjectedController):
    """One shift of log_alpha for all targets: the one at which each expected size is at most its target.

    A unit costs the weighted sum of what it costs in each metric, as shares of the dense network. The weights are the
    multipliers of the targets: after each step that of a target with room falls, so that in the end those bind alone
    whose sizes are at their targets. Whatever the weights are, no target is exceeded: the shift is that of the most
    demanding one.

    Args:
        target_sparsity: The leading target once the warm-up is over.
        config: Schedule and rates.
        units: Units of each group (G,).
        more: The further targets (M - 1,).
        start: As `ProjectedController` takes it.
        prior: As `ProjectedController` takes it.
    """

    targets: Tensor
    """(M,) final target sparsities."""
    prices: Tensor
    """(M, N) what each unit costs in each metric."""
    gaps: Tensor
    """(M,) by how much each expected size is above its target, as a share of the dense size."""

    def __init__(
        self,
        target_sparsity: float,
        config: ControllerConfig,
        units: Sequence[int],
        *,
        more: Sequence[float],
        start: np.ndarray | None = None,
        prior: np.ndarray | None = None,
    ) -> None:
        super().__init__(target_sparsity, config, units, start=start, prior=prior)
        targets = torch.tensor([target_sparsity, *more], dtype=torch.float64)
        self.register_buffer("targets", targets, persistent=False)
        self.register_buffer("prices", torch.ones(len(targets), sum(units), dtype=torch.float64))
        self.register_buffer("gaps", torch.zeros(len(targets), dtype=torch.float64))

    def shrink(self, units: np.ndarray, groups: Sequence[int]) -> None:
        """Forget units and groups that are gone for good."""
        super().shrink(units, groups)
        self.prices = self.prices[:, torch.from_numpy(np.asarray(units)).to(self.prices.device)]

    def _price(self, gates: Gates) -> None:
        for price, budget in zip(self.prices, gates.budgets, strict=True):
            kept = torch.ones_like(price).requires_grad_()
            with torch.enable_grad():
                (found,) = torch.autograd.grad(budget.size.priced(kept) / budget.size.total, kept)
            price.copy_(found)
        self.costs.copy_(gates.weights.to(self.prices) @ self.prices)

    def _move(self, gates: Gates, step: int) -> None:
        left = 1 - self.targets * (self.target_at(step) / self.target_sparsity)
        weights = gates.weights.clamp_min(_LEAST) * (_GAIN * self.gaps / left).clamp(-1, 0).exp()
        gates.weights.copy_(weights / weights.sum())
        self.costs.copy_(gates.weights.to(self.prices) @ self.prices)
        super()._move(gates, step)

    def _gap(self, gates: Gates, kept: Tensor, left: float) -> Tensor:
        rise = (1 - left) / self.target_sparsity
        found = [
            budget.size.expected(kept) / budget.size.total - (1 - target * rise)
            for budget, target in zip(gates.budgets, self.targets, strict=True)
        ]
        self.gaps.copy_(torch.stack(found))
        return self.gaps.max()


class SeveralLagrangian(AugmentedLagrangian):
    """A pair of multipliers for each target: lambda1 (s - t) + lambda2 (s - t)^2 for the targets that are active.

    Targets are active that are not met yet, and the one that is met most narrowly: it holds the size where it is, as a
    single target does. Gates that have closed far beyond all targets would have no gradient that opens them again.

    Args:
        target_sparsity: The leading target once the warm-up is over.
        config: Schedule and rates.
        more: The further targets (M - 1,).
    """

    active: Tensor
    """(M,) 1 for the targets that were active at the last step, else 0."""

    def __init__(self, target_sparsity: float, config: ControllerConfig, *, more: Sequence[float]) -> None:
        super().__init__(target_sparsity, config)
        self._shares = _shares(target_sparsity, more)
        self.multipliers = nn.Parameter(self.multipliers.detach().expand(len(self._shares), 2).clone())
        self.register_buffer("active", torch.ones(len(self._shares), dtype=torch.float64))

    def penalty(self, sparsity: Tensor, step: int) -> Tensor:
        """The sum of eq. 6 over the active targets, for the expected sparsities (M,) at a step."""
        gaps = sparsity - self.target_at(step) * sparsity.new_tensor(self._shares)
        self.active.copy_(_active(gaps))
        gaps = gaps * self.active
        multipliers = self.reversed_multipliers()
        return (multipliers[:, 0] * gaps + multipliers[:, 1] * gaps**2).sum()

    def multiplier_values(self) -> list[float]:
        """lambda1 and lambda2 of each target."""
        return self.multipliers.flatten().tolist()

    @torch.no_grad()
    def after_step(self, gates: Gates, step: int, *, skipped: Tensor | None = None) -> None:
        """Let lambda1 of targets that are not active return to 0."""
        self.multipliers[:, 0].mul_(self.active + _FORGOTTEN * (1 - self.active))
        super().after_step(gates, step, skipped=skipped)


class SeveralIntegral(ProportionalIntegral):
    """A multiplier for each target, set by its gap and the sum of its gaps while the target is active.

    Args:
        target_sparsity: The leading target once the warm-up is over.
        config: Schedule and rates.
        more: The further targets (M - 1,).
    """

    def __init__(self, target_sparsity: float, config: ControllerConfig, *, more: Sequence[float]) -> None:
        super().__init__(target_sparsity, config)
        self._shares = _shares(target_sparsity, more)
        self.integral = torch.zeros(len(self._shares), dtype=torch.float64)

    def penalty(self, sparsity: Tensor, step: int) -> Tensor:
        """The sum of lambda (s - t) over the active targets, for the expected sparsities (M,) at a step."""
        gaps = sparsity - self.target_at(step) * sparsity.new_tensor(self._shares)
        gaps = gaps * _active(gaps)
        return ((self.integral + self.config.proportional * gaps.detach()) * gaps).sum()

    def multiplier_values(self) -> list[float]:
        """The integral part of each target, and the factor of the proportional one."""
        return [*self.integral.tolist(), self.config.proportional]

    @torch.no_grad()
    def after_step(self, gates: Gates, step: int, *, skipped: Tensor | None = None) -> None:
        """Add the gaps of active targets to their integrals; those of the others return to 0."""
        kept = gates.keep_probabilities()
        expected = torch.stack([budget.size.expected(kept) / budget.size.total for budget in gates.budgets])
        gaps = 1 - expected - self.target_at(step) * expected.new_tensor(self._shares)
        active, gaps = _active(gaps), torch.nan_to_num(gaps)
        self.integral.mul_(active + _FORGOTTEN * (1 - active))
        self.integral.add_(gaps * active * self.config.integral * (1 if skipped is None else 1 - skipped))
        self.settle(gates, step)


def _active(gaps: Tensor) -> Tensor:
    """(M,) 1 for targets that are not met, and for the one that is met most narrowly; else 0."""
    return ((gaps < 0) | (gaps <= gaps.min())).to(gaps.dtype).detach()


def several(
    target_sparsity: float,
    config: ControllerConfig,
    gates: Gates,
    *,
    start: np.ndarray | None,
    prior: np.ndarray | None,
) -> SizeController:
    """The controller of a kind for gates with several budgets."""
    more = [budget.sparsity for budget in gates.more]
    if config.kind == "projected":
        units = [group.units for group in gates.groups]
        return SeveralProjected(target_sparsity, config, units, more=more, start=start, prior=prior)
    kinds = {"lagrangian": SeveralLagrangian, "pi": SeveralIntegral}
    return kinds[config.kind](target_sparsity, config, more=more)


def _shares(target_sparsity: float, more: Sequence[float]) -> list[float]:
    """Each target as a multiple of the leading one: all rise together."""
    return [1.0, *(target / target_sparsity for target in more)]
