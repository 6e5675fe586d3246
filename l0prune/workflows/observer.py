"""Who watches a run."""

from pathlib import Path

from l0prune.config import RunConfig
from l0prune.gates import GatedModel
from l0prune.plugin import STAGES, Task
from l0prune.support import say
from l0prune.training import Record
from l0prune.workflows.results import CompressionReport


class Observer:
    """Watches a run; every method may be overridden, none needs to be."""

    def prepared(self, task: Task, gated: GatedModel, config: RunConfig, folder: Path) -> None:
        """Model, groups and data are ready and the groups are proved."""

    def stage_begins(self, name: str, steps: int, done: int) -> None:
        """A training stage begins, or goes on after `done` steps."""

    def record(self, record: Record) -> None:
        """A logging step."""

    def compacted(self, step: int, parameters: int) -> None:
        """Units that had closed for good have left the network; so many parameters are in it still."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def finished(self, report: CompressionReport) -> None:
        """The run is complete."""


class LoggingObserver(Observer):
    """Says what goes on by the logger `l0prune`, for programs without a terminal."""

    def prepared(self, task: Task, gated: GatedModel, config: RunConfig, folder: Path) -> None:
        """Say what will be pruned."""
        size = gated.size_model
        most = size.shown(gated.gates.budget)
        say(f"{task.teacher}: {size.shown(size.total)} {size.counts}, at most {most} will stay")
        for name, value in task.facts.items():
            say(f"{name}: {value}")

    def stage_begins(self, name: str, steps: int, done: int) -> None:
        """Say which."""
        say(f"{STAGES.get(name, name)}: {steps} steps" + (f", going on from {done}" if done else ""))

    def compacted(self, step: int, parameters: int) -> None:
        """Say that the network shrank."""
        say(f"step {step}: closed units left; {parameters:,} parameters are in the network")

    def note(self, text: str) -> None:
        """Say it."""
        say(text)

    def finished(self, report: CompressionReport) -> None:
        """Say what is left."""
        say(f"{report.params_after:,} of {report.params_before:,} parameters are left: {report.run_directory}")
