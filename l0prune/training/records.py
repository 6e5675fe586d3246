"""What a run shows and writes as it goes: a record each logging step."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from l0prune.distributed import average, world
from l0prune.training.objective import Losses


@dataclass(frozen=True, kw_only=True)
class Record:
    """One logging step, a row of metrics.jsonl."""

    stage: str
    """"joint" or "further"."""
    step: int
    """Of the stage, from 1."""
    steps: int
    """Of the stage."""
    loss: float
    """Mean over the steps since the last record and over all processes, the controller's penalty left out."""
    parts: dict[str, float]
    """Likewise, of what the loss is made of."""
    learning_rate: float
    """Of the weights, at this step."""
    gradient_norm: float
    """Of the weights at this step, before clipping."""
    amount_per_second: float
    """Data in the unit that the task names, a second, all processes together."""
    step_seconds: float
    """Mean since the last record."""
    seconds_left: float
    """Of the stage, at the speed since the last record."""
    skipped_steps: int
    """In the stage so far, because of a loss or gradient that is not finite."""
    parameters: int
    """Of the network as it is now."""
    sparsity: float | None = None
    """Expected under the gates, in what the metric counts, at this step; None without gates."""
    target: float | None = None
    """What the controller asks for at this step."""
    multipliers: tuple[float, ...] | None = None
    """lambda1 and lambda2, of a controller that has any."""
    forced_units: int | None = None
    """Units on which a cut now would decide otherwise than their gates: open ones removed, closed ones kept."""


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

    def state(self) -> dict[str, Any]:
        """What `restore` takes. Of several processes it holds the sums of the one that saves."""
        return dict(vars(self))

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        vars(self).update(state)

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
