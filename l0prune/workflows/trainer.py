"""The stages of a run, trained: what is recorded on the way, when the state is saved, when to stop."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from l0prune.config import RunConfig
from l0prune.distributed import world
from l0prune.errors import DataError, FailedElsewhere, Interrupted, RunError, TrainingError
from l0prune.gates import GatedModel
from l0prune.measuring import parameters
from l0prune.plugin import Task
from l0prune.removal import RemovalPlan
from l0prune.storage import RunDirectory, save_checkpoint
from l0prune.training import Record, Stage, shared, split_for
from l0prune.workflows.observer import Observer
from l0prune.workflows.results import Compaction, RunResults

_DEAD_WORKER = "DataLoader worker"


class Trainer:
    """Trains the stages of one run.

    Args:
        task: Objective and data.
        config: The run's settings.
        folder: Where records and checkpoints go; the main process writes them.
        observer: Watches.
        results: What the run has found so far; saved and added to.
    """

    def __init__(
        self, task: Task, config: RunConfig, folder: RunDirectory, observer: Observer, results: RunResults
    ) -> None:
        self.task, self.config, self.folder, self.observer, self.results = task, config, folder, observer, results
        self.split = split_for(world(), config)
        self.plan: RemovalPlan | None = None
        """What was cut between the stages; saved with the second."""
        self.stopped: Callable[[], int | None] = lambda: None
        """Gives the signal that asks this process to stop, if any has come."""
        self.prior: np.ndarray | None = None
        """(N,) importances of the dense network's units, for a controller that goes by them."""
        self._saved_at = time.monotonic()

    def stage(self, name: str, gated: GatedModel | None = None) -> Stage:
        """A stage at its beginning."""
        config = self.config
        return Stage(
            name,
            self.task.objective,
            config.joint if name == "joint" else config.further,
            precision=config.precision,
            gated=gated,
            controller=config.controller,
            prior=self.prior,
            compaction=config.compaction,
            elastic=config.elastic,
            seed=config.seed,
            split=self.split,
            compiled=config.compile,
            describe=self.task.describe_batch,
        )

    def train(self, stage: Stage) -> None:
        """Train a stage to its end.

        Raises:
            Interrupted: A signal came; the state is saved.
            TrainingError, DataError: It cannot go on; the last good state is saved.
        """
        before = 0 if stage.name == "joint" else self.config.joint.steps
        self.observer.stage_begins(stage.name, stage.config.steps, stage.step)

        def on_record(record: Record) -> None:
            if world().is_main:
                self.folder.append_metrics({"position": before + record.step, **asdict(record)})
            self.observer.record(record)

        def on_cut(plan: RemovalPlan) -> None:
            size = parameters(stage.objective.student)
            self.results.compactions.append(Compaction(step=stage.step, parameters=size, kept=plan.kept_counts))
            self.observer.compacted(stage.step, size)

        def after_step(signal_number: int) -> None:
            due = time.monotonic() - self._saved_at > self.config.checkpoint_minutes * 60
            if signal_number or due:
                self.save(stage)
            if signal_number:
                hint = f"go on with --resume --out {self.folder.path}"
                raise Interrupted(signal_number, where=f"{stage.name} step {stage.step}", hint=hint)

        batches = shared(self.task.batches, self.split)(self._batches_before(stage))
        try:
            stage.run(
                batches,
                log_every=self.config.log_every,
                on_record=on_record,
                after_step=after_step,
                stopped=self.stopped,
                on_cut=on_cut,
            )
        except (TrainingError, DataError, FailedElsewhere):
            # What failed left the last good state as it was.
            self.save(stage)
            raise
        except RuntimeError as error:
            # Comes at any moment, the middle of a step too: the last checkpoint must do.
            if _DEAD_WORKER not in str(error):
                raise
            hint = "memory may be short: let fewer processes read data, then go on with --resume"
            where = f"{stage.name} step {stage.step}"
            raise TrainingError("a process that reads data died", where=where, got=error, hint=hint) from error
        self.results.stage_seconds[stage.name] = stage.seconds
        self.results.step_seconds[stage.name] = stage.seconds / max(1, stage.step)
        self.results.skipped_steps += stage.skipped_steps

    def _batches_before(self, stage: Stage) -> int:
        """Micro-batches that this process has taken before the stage's current step."""
        joint = self.config.joint
        consumed = 0 if stage.name == "joint" else joint.steps * joint.micro_batches * self.split // world().size
        return consumed + stage.step * stage.micro_batches

    def restore(self, stage: Stage, state: Mapping[str, Any]) -> None:
        """Put back a saved state.

        Raises:
            RunError: It is that of another network.
        """
        try:
            stage.restore(state)
        except (LookupError, RuntimeError, TypeError, ValueError) as error:
            hint = "is the teacher still the one the run began with?"
            raise RunError("checkpoint does not fit the run", where=self.folder.path, hint=hint) from error

    def save(self, stage: Stage) -> None:
        """Save the state, in the main process."""
        self._saved_at = time.monotonic()
        if not world().is_main:
            return
        position = stage.step + (0 if stage.name == "joint" else self.config.joint.steps)
        plan = self.plan.to_json() if self.plan else None
        state = {**stage.state(), "position": position, "plan": plan, "results": self.results.facts()}
        state |= {"split": self.split, "data_digest": self.task.data_digest, "origin": dict(self.folder.origin)}
        save_checkpoint(self.folder.checkpoints, position, state, keep=self.config.keep_checkpoints)
        self._saved_at = time.monotonic()
