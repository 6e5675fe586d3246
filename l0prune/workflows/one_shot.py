"""A run without a joint stage: units are ranked on the first training batches, removed at once, and made up for."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from l0prune.calibration import repair
from l0prune.config import RunConfig
from l0prune.distributed import average
from l0prune.importance import importances
from l0prune.plugin import Task
from l0prune.removal import RemovalPlan
from l0prune.size import SizeModel
from l0prune.support import counted, evaluating
from l0prune.training import evaluate
from l0prune.workflows.calibrating import first_batches, loss_with


class OneShot:
    """What takes the place of the joint stage in one run.

    Args:
        task: Objective and data.
        config: The run's settings.
        split: Into how many parts batches come.
        note: Told of what is done.
    """

    def __init__(self, task: Task, config: RunConfig, split: int, note: Callable[[str], None]) -> None:
        self.task, self.config, self.split, self.note = task, config, split, note

    def scores(self, size: SizeModel | None) -> np.ndarray:
        """What ranks the units (N,), the same in all processes.

        Args:
            size: What the target counts; None for the parameters.

        Raises:
            L0PruneError: As `importances` does: a loss without a gradient, for example.
        """
        student, importance = self.task.objective.student, self.config.one_shot.importance
        with evaluating(self.task.objective):
            scores = importances(
                student,
                self.task.groups,
                importance,
                size_model=size,
                batches=self._batches(),
                loss=loss_with(self.task),
                seed=self.config.seed,
            )
        self.note(f"no joint stage: units are ranked by {importance}")
        same = torch.from_numpy(scores).to(next(student.parameters()).device)
        average([same])
        return same.cpu().numpy()

    def repair(self, dense: nn.Module, student: nn.Module, plan: RemovalPlan | None) -> float | None:
        """Fit the pruned student to the dense one, if the settings say so.

        Args:
            dense: The student before the cut.
            student: After it; what reads removed units changes.
            plan: What was cut.

        Returns:
            The loss after the repair, where it was repaired and data are held out.
        """
        if plan is None or not self.config.one_shot.repair:
            return None
        objective, held_out = self.task.objective, list(self.task.evaluation)
        with evaluating(objective):
            repaired = repair(dense, student, plan, self._batches(), loss=loss_with(self.task))
        average([tensor for tensor in student.state_dict().values() if tensor.is_floating_point()])
        self.note(f"repair: {counted(len(repaired), 'layer')} fitted to the dense network")
        if not held_out:
            return None
        objective.student = student
        return evaluate(objective, held_out)[0]

    def _batches(self) -> list[Any]:
        return first_batches(self.task, self.split, self.config.one_shot.batches)
