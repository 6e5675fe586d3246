"""A task's first batches, and its loss with another student: what a network is fitted to after a cut."""

import itertools
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from l0prune.plugin import Task
from l0prune.training import shared


def first_batches(task: Task, split: int, number: int) -> list[Any]:
    """This process's share of the first training batches.

    Args:
        task: Gives the batches.
        split: Into how many parts each comes.
        number: How many.
    """
    return list(itertools.islice(shared(task.batches, split)(0), number))


def loss_with(task: Task) -> Callable[[nn.Module, Any], Tensor]:
    """Gives the objective's loss with another student on a batch."""
    objective = task.objective

    def loss(model: nn.Module, batch: Any) -> Tensor:
        student, objective.student = objective.student, model
        try:
            return objective(batch).total
        finally:
            objective.student = student

    return loss
