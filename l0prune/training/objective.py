"""What is minimised, and what it is on held-out batches."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

from l0prune.distributed import shared_out
from l0prune.support import evaluating


@dataclass(frozen=True, kw_only=True)
class Losses:
    """What an objective returns for a batch."""

    total: Tensor
    """Scalar to minimise."""
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    """Scalars to report, by name."""
    amount: float = 1.0
    """How much data the batch holds, in the unit that the task names, for example images."""


def mean(losses: Sequence[Losses]) -> Losses:
    """The means of what one batch has given several times."""
    if len(losses) == 1:
        return losses[0]
    number = len(losses)
    parts = {
        name: sum((each.parts[name] for each in losses[1:]), value) / number for name, value in losses[0].parts.items()
    }
    total = sum((each.total for each in losses[1:]), losses[0].total)
    return Losses(total=total / number, parts=parts, amount=losses[0].amount)


class Objective(nn.Module):
    """What is minimised: its parameters are trained, `student` among them is pruned.

    While training, whatever else is frozen (a teacher, none of whose parameters takes a gradient) stays in the mode in
    which it was given, `eval()` say.

    Args:
        student: The network to prune.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student

    def train(self, mode: bool = True) -> Self:
        """As any module's, but for what is frozen beside the student, which does not go into training mode."""
        student, before = set(self.student.modules()), {}
        for module in self.modules():
            parameters = [] if module in student else list(module.parameters())
            if mode and parameters and not any(parameter.requires_grad for parameter in parameters):
                before |= {inner: inner.training for inner in module.modules() if inner not in student}
        super().train(mode)
        for module, training in before.items():
            module.training = training
        return self

    def begin(self) -> None:
        """What is to be done before the first step of a stage; nothing by default.

        A saved state has been put back by then. All processes of a run call it at once, and fail together.
        """

    @abstractmethod
    def forward(self, batch: Any) -> Losses:
        """Losses of one batch."""


@torch.no_grad()
def evaluate(objective: Objective, batches: Sequence[Any]) -> tuple[float, dict[str, float]]:
    """Mean loss and parts over fixed batches, weighted by amount; in evaluation mode and full precision.

    The processes of a run share the batches out, and have the same means, those of a single process.
    """

    def sums(batch: Any) -> tuple[float, dict[str, float], float]:
        losses: Losses = objective(batch)
        parts = {name: value.item() * losses.amount for name, value in losses.parts.items()}
        return losses.total.item() * losses.amount, parts, losses.amount

    total, amount, parts = 0.0, 0.0, {}
    with evaluating(objective):
        for loss, of_parts, of_amount in shared_out(batches, sums):
            total, amount = total + loss, amount + of_amount
            for name, value in of_parts.items():
                parts[name] = parts.get(name, 0.0) + value
    return total / amount, {name: value / amount for name, value in parts.items()}
