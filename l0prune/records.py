"""What a run shows and writes as it goes: a record each logging step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from l0prune.distributed import average, world
from l0prune.objective import Losses


@dataclass(frozen=True, kw_only=True)
class Record:
    """One logging step, averaged over the steps since the last, and over all processes."""

    stage: str
    step: int
    steps: int
    loss: float
    parts: dict[str, float]
    learning_rate: float
    gradient_norm: float
    amount_per_second: float
    step_seconds: float
    seconds_left: float
    skipped_steps: int
    parameters: int
    """Of the network as it is now."""
    sparsity: float | None = None
    target: float | None = None
    multipliers: tuple[float, float] | None = None


class Meter:
    """Sums since the last record; tensors stay on their device until then."""

    def __init__(self) -> None:
        self.count, self.seconds, self.amount = 0, 0.0, 0.0
        self.total: Tensor | float = 0.0
        self.norm: Tensor | float = 0.0
        self.parts: dict[str, Tensor | float] = {}

    def add(self, all_losses: Sequence[Losses], norm: Tensor, seconds: float) -> None:
        """Count a step with the losses of its micro-batches."""
        self.count, self.seconds, self.norm = self.count + 1, self.seconds + seconds, norm
        for losses in all_losses:
            self.amount += losses.amount
            self.total = self.total + losses.total.detach() / len(all_losses)
            for name, value in losses.parts.items():
                self.parts[name] = self.parts.get(name, 0.0) + value.detach() / len(all_losses)

    def means(self) -> dict[str, Any]:
        """The fields of a record that this knows. Every process must call it: what they saw is averaged."""
        values = torch.tensor([self.amount, float(self.total), *map(float, self.parts.values())], dtype=torch.float64)
        average([values])
        amount, total, *parts = values.tolist()
        return {
            "loss": total / self.count,
            "parts": {name: part / self.count for name, part in zip(self.parts, parts, strict=True)},
            "gradient_norm": float(self.norm),
            "amount_per_second": amount * world().size / self.seconds,
            "step_seconds": self.seconds / self.count,
        }
