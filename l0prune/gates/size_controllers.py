"""What brings the expected size to its target: the interface, the published augmented Lagrangian, a PI controller.

`projected.py` holds the third one, which needs no multipliers.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from l0prune.config import ControllerConfig
from l0prune.gates.gates import Gates


def reading_waits(tensor: Tensor) -> bool:
    """Whether reading a number from a tensor waits for a device that still works on it."""
    return tensor.device.type != "cpu"


class SizeController(nn.Module):
    """Brings the expected sparsity of gates to a target that rises over the warm-up.

    Whatever it learns is in its parameters and buffers, so that `state_dict()` continues it.

    Args:
        target_sparsity: The target once the warm-up is over.
        config: Schedule and rates.
    """

    has_penalty = True
    """Whether `penalty` says anything."""

    def __init__(self, target_sparsity: float, config: ControllerConfig) -> None:
        super().__init__()
        self.target_sparsity, self.config = target_sparsity, config

    def target_at(self, step: int) -> float:
        """The target at optimizer step `step`, counted from 0: it rises linearly over the warm-up."""
        if step >= self.config.warmup_steps:
            return self.target_sparsity
        return self.target_sparsity * step / self.config.warmup_steps

    def settled_at(self, step: int) -> bool:
        """Whether the choice of units is final at a step."""
        return self.config.settle_steps is not None and step >= self.config.settle_steps

    def trained(self, gates: Gates) -> list[nn.Parameter]:
        """What the optimizer of the weights trains too, at rates of its own."""
        return [gates.log_alpha]

    def penalty(self, sparsity: Tensor, step: int) -> Tensor:
        """What is added to the loss for the expected sparsity at a step; float64 scalar."""
        raise NotImplementedError

    def multiplier_values(self) -> list[float]:
        """The multipliers now, for records; none if there are none."""
        return []

    def steps_without_gradient(self) -> int:
        """Steps in a row in which the gates had no finite gradient, where it looks at their gradient."""
        return 0

    def begin(self, gates: Gates) -> None:
        """Prepare new gates for this controller."""

    def after_step(self, gates: Gates, step: int, *, skipped: Tensor | None = None) -> None:
        """Follow an optimizer step.

        Args:
            gates: The gates, with the gradient of the step if this controller moves them itself.
            step: How many steps have been made.
            skipped: 1 on the device where the optimizer has left the step out; None where that cannot be.
        """
        self.settle(gates, step)

    def shrink(self, units: np.ndarray, groups: Sequence[int]) -> None:
        """Forget units and groups that are gone for good, by the numbers (of both) that are left."""

    def settle(self, gates: Gates, step: int) -> None:
        """Make the choice of units final where it is time, at a step or where a saved state is put back."""
        if self.settled_at(step) and not gates.settled:
            gates.settle(held=not self.trained(gates))


class AugmentedLagrangian(SizeController):
    """lambda1 (s - t) + lambda2 (s - t)^2, to be minimised over the gates and maximised over the multipliers.

    `config.quadratic_start` is where lambda2 starts; lambda1 starts at 0.

    Source: Wang et al. 2020, "Structured Pruning of Large Language Models"; DPHuBERT (arXiv 2305.17651), eq. 6.
    """

    def __init__(self, target_sparsity: float, config: ControllerConfig) -> None:
        super().__init__(target_sparsity, config)
        self.multipliers = nn.Parameter(torch.tensor([0.0, config.quadratic_start], dtype=torch.float64))
        """lambda1 and lambda2. Their gradients come reversed, so that an optimizer that minimises ascends on them."""

    def trained(self, gates: Gates) -> list[nn.Parameter]:
        """Gates and multipliers."""
        return [gates.log_alpha, self.multipliers]

    def penalty(self, sparsity: Tensor, step: int) -> Tensor:
        """Eq. 6 for the expected sparsity s at a step."""
        gap = sparsity - self.target_at(step)
        multipliers = self.reversed_multipliers()
        return multipliers[0] * gap + multipliers[1] * gap**2

    def reversed_multipliers(self) -> Tensor:
        """The multipliers, whose gradient changes sign."""
        return _Reversed.apply(self.multipliers)  # type: ignore[return-value]

    def multiplier_values(self) -> list[float]:
        """lambda1 and lambda2."""
        return self.multipliers.tolist()


class ProportionalIntegral(SizeController):
    """lambda (s - t), with lambda set by the gap rather than learned: damped dual updates.

    lambda = proportional * gap + the sum of integral * gap over the steps so far. The proportional part damps the swing
    of plain dual ascent, whose multiplier lags a quarter of a period behind.

    Source: Stooke et al. 2020, "Responsive Safety in Reinforcement Learning by PID Lagrangian Methods".
    """

    integral: Tensor

    def __init__(self, target_sparsity: float, config: ControllerConfig) -> None:
        super().__init__(target_sparsity, config)
        self.register_buffer("integral", torch.zeros((), dtype=torch.float64))

    def penalty(self, sparsity: Tensor, step: int) -> Tensor:
        """lambda (s - t) for the expected sparsity s at a step; lambda takes no gradient."""
        gap = sparsity - self.target_at(step)
        return (self.integral + self.config.proportional * gap.detach()) * gap

    def multiplier_values(self) -> list[float]:
        """The integral part, and the factor of the proportional one."""
        return [float(self.integral), self.config.proportional]

    @torch.no_grad()
    def after_step(self, gates: Gates, step: int, *, skipped: Tensor | None = None) -> None:
        """Add the step's gap to the integral."""
        expected = gates.size_model.expected(gates.keep_probabilities()) / gates.size_model.total
        gap = 1 - expected - self.target_at(step)
        gap = gap if skipped is None else gap * (1 - skipped)
        self.integral.add_(torch.nan_to_num(gap) * self.config.integral)
        self.settle(gates, step)


class _Reversed(torch.autograd.Function):
    """The identity, whose gradient changes sign: any optimizer will do, also one that knows no `maximize`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return -grad
