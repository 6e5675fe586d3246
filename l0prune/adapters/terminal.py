"""A run's progress on the terminal: plain lines in a pipe or a log, live progress on a terminal."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from l0prune.adapters.console import fitted, make_console, report_table
from l0prune.config import RunConfig
from l0prune.gates import GatedModel
from l0prune.plugin import STAGES, Task
from l0prune.support import duration
from l0prune.training import Record
from l0prune.workflows import CompressionReport, Observer, register_display, summarise_kinds


class TerminalObserver(Observer):
    """Shows a run as it goes.

    Args:
        console: Where to show it; standard error by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console = console or make_console(stderr=True)
        self.live = console.is_terminal
        self.unit = ""
        self._progress: Progress | None = None
        self._display: Live | None = None
        self._bar = TaskID(0)

    def __enter__(self) -> "TerminalObserver":
        return self

    def __exit__(self, *_error: object) -> None:
        self._end_stage()

    def prepared(self, task: Task, gated: GatedModel, config: RunConfig, folder: Path) -> None:
        """Show what will be pruned."""
        self.unit = task.unit
        total = gated.parameter_model.total
        table = Table(title=": ".join(filter(None, ("To prune", task.teacher))), title_justify="left")
        table.add_column("unit")
        for heading in ("groups", "units", "parameters", "share"):
            table.add_column(heading, justify="right", no_wrap=True)
        for row in summarise_kinds(gated):
            share = f"{row['parameters'] / total:.1%}"
            table.add_row(row["kind"], str(row["groups"]), f"{row['units']:,}", f"{row['parameters']:,}", share)
        self.console.print(fitted(table, self.console.width))
        size = gated.size_model
        must = f"at most {size.shown(gated.gates.budget)} will stay, {size.shown(size.floor)} at least must"
        self.console.print(f"{size.shown(size.total)} {size.counts}; {must}")
        for name, value in task.facts.items():
            self.console.print(f"{name}: {value}")
        self.console.print(f"recipe: {config.recipe}; every group proved; run directory: {folder}")

    def stage_begins(self, name: str, steps: int, done: int) -> None:
        """Begin a progress bar."""
        self._end_stage()
        title = STAGES.get(name, name)
        if not self.live:
            self.console.print(f"{title}: {steps} steps" + (f", going on from {done}" if done else ""))
            return
        self._progress = self._bars(TextColumn("{task.fields[left]}"))
        self._bar = self._progress.add_task(title, total=steps, completed=done, left="")
        self._display = Live(self._progress, console=self.console, refresh_per_second=4)
        self._display.start()

    def counting(self, what: str, items: Iterable[Any]) -> Iterator[Any]:
        """Show how many of some items are through."""
        self._end_stage()
        if not self.live:
            yield from items
            return
        with self._bars() as bars:
            yield from bars.track(items, description=what)

    def record(self, record: Record) -> None:
        """Show a logging step."""
        if self._progress is None or self._display is None:
            place, left = f"{record.stage} {record.step}/{record.steps}", f"left {duration(record.seconds_left)}"
            pieces = (place, _status(record, self.unit), _parts(record), left)
            self.console.print("  ".join(piece for piece in pieces if piece))
            return
        self._progress.update(self._bar, completed=record.step, left=f"{duration(record.seconds_left)} left")
        grid = Table.grid()
        grid.add_row(self._progress)
        for line in filter(None, (_status(record, self.unit), _parts(record))):
            grid.add_row(Text(f"  {line}", style="dim", no_wrap=True, overflow="ellipsis"))
        self._display.update(grid)

    def compacted(self, step: int, parameters: int) -> None:
        """Show that the network shrank."""
        self.console.print(f"step {step}: closed units left; {parameters:,} parameters are in the network")

    def note(self, text: str) -> None:
        """Show a line."""
        self._end_stage()
        self.console.print(text)

    def finished(self, report: CompressionReport) -> None:
        """Show what was achieved."""
        self._end_stage()
        self.console.print(fitted(report_table(report), self.console.width))
        self.console.print(f"files: {report.run_directory}/ (model.safetensors, model.json, report.json, ...)")
        self.console.print(f'open it: l0prune.load("{report.run_directory}")')

    def _bars(self, *more: TextColumn) -> Progress:
        columns = TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn()
        return Progress(*columns, *more, console=self.console)

    def _end_stage(self) -> None:
        if self._display is not None:
            self._display.stop()
        self._progress = self._display = None


def _status(record: Record, unit: str) -> str:
    pieces = [f"training loss {record.loss:.4f}"]
    if record.sparsity is not None and record.target is not None:
        pieces.append(f"sparsity {record.sparsity:.3f} / {record.target:.3f}")
    if record.multipliers is not None:
        pieces.append(" ".join(["lambda", *(f"{value:+.3f}" for value in record.multipliers)]))
    # Without a name for what is counted nobody can tell what so many a second are: steps are steps.
    pieces.append(f"{record.amount_per_second:.0f} {unit}/s" if unit else f"{1 / record.step_seconds:.1f} steps/s")
    return "  ".join(pieces)


def _parts(record: Record) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in record.parts.items())


register_display(TerminalObserver)
