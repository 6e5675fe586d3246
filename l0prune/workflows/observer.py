"""Who watches a run."""

from pathlib import Path

from l0prune.config import RunConfig
from l0prune.gates import GatedModel
from l0prune.plugin import Task
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
