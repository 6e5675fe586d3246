"""What is minimised, and what it is on held-out batches."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Losses:
    """What an objective returns for a batch."""

    total: Tensor
    """Scalar to minimise."""
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    """Scalars to report, by name."""
    amount: float = 1.0
    """How much data the batch holds, in the task's unit (seconds of audio, examples)."""


class Objective(nn.Module):
    """What is minimised: its parameters are trained, `student` among them is pruned.

    Args:
        student: The network to prune.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student

    @abstractmethod
    def forward(self, batch: Any) -> Losses:
        """Losses of one batch."""


@torch.no_grad()
def evaluate(objective: Objective, batches: list[Any]) -> tuple[float, dict[str, float]]:
    """Mean loss and parts over fixed batches, weighted by amount; in evaluation mode and full precision."""
    training = objective.training
    objective.eval()
    total, amount, parts = 0.0, 0.0, {}
    for batch in batches:
        losses: Losses = objective(batch)
        total, amount = total + losses.total.item() * losses.amount, amount + losses.amount
        for name, value in losses.parts.items():
            parts[name] = parts.get(name, 0.0) + value.item() * losses.amount
    objective.train(training)
    return total / amount, {name: value / amount for name, value in parts.items()}
