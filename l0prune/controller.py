"""The augmented Lagrangian that drives the expected sparsity to its target (DPHuBERT, eq. 5 and 6)."""

import torch
from torch import Tensor, nn


class AugmentedLagrangian(nn.Module):
    """lambda1 (s - t) + lambda2 (s - t)^2, to be minimised over the gates and maximised over the multipliers.

    Args:
        target_sparsity: t once the warm-up is over.
        warmup_steps: Steps over which t rises linearly from 0.
        quadratic_start: Where lambda2 starts; lambda1 starts at 0.

    Source: Wang et al. 2020, "Structured Pruning of Large Language Models"; DPHuBERT (arXiv 2305.17651), eq. 6.
    """

    def __init__(self, target_sparsity: float, warmup_steps: int, quadratic_start: float = 0.0) -> None:
        super().__init__()
        self.target_sparsity, self.warmup_steps = target_sparsity, warmup_steps
        self.multipliers = nn.Parameter(torch.tensor([0.0, quadratic_start], dtype=torch.float64))
        """lambda1 and lambda2. Their gradients come reversed, so that an optimizer that minimises ascends on them."""

    def target_at(self, step: int) -> float:
        """The target t at optimizer step `step`, counted from 0."""
        if step >= self.warmup_steps:
            return self.target_sparsity
        return self.target_sparsity * step / self.warmup_steps

    def penalty(self, sparsity: Tensor, step: int) -> Tensor:
        """The penalty for the expected sparsity s at a step; a float64 scalar to be added to the loss."""
        gap = sparsity - self.target_at(step)
        multipliers: Tensor = _Reversed.apply(self.multipliers)  # type: ignore[assignment]
        return multipliers[0] * gap + multipliers[1] * gap**2


class _Reversed(torch.autograd.Function):
    """The identity, whose gradient changes sign: any optimizer will do, also one that knows no `maximize`."""

    @staticmethod
    def forward(ctx, x):  # type: ignore[override]
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[override]
        return -grad
