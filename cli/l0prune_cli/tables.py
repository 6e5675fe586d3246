"""Everything the terminal shows. A pipe or a log gets plain lines, a terminal live progress."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from l0prune import (
    CompressionReport,
    Export,
    GatedModel,
    Measurement,
    Observer,
    Record,
    RunConfig,
    Task,
    duration,
    quantity,
    summarise_kinds,
)


def make_console(*, stderr: bool = False) -> Console:
    """A console that shows names as they are and never breaks the lines of a pipe or a log."""
    console = Console(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _UNBOUNDED
    return console


def print_result(document: Any, *shown: RenderableType, as_json: bool) -> None:
    """Print what a command found: one JSON document on stdout, or what people read."""
    if as_json:
        print(json.dumps(document, indent=1))
        return
    for part in shown:
        make_console().print(part)


_UNBOUNDED = 10_000
"""Columns of a pipe or a log: more than any table needs."""


class TerminalObserver(Observer):
    """Shows a run as it goes.

    Args:
        console: Where to show it.
    """

    def __init__(self, console: Console) -> None:
        self.console, self.live = console, console.is_terminal
        self.unit = "batches"
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
        table = Table(title=f"To prune: {task.teacher}", title_justify="left")
        for heading in ("unit", "groups", "units", "parameters", "share"):
            table.add_column(heading, justify="left" if heading == "unit" else "right")
        for row in summarise_kinds(gated):
            share = f"{row['parameters'] / total:.1%}"
            table.add_row(row["kind"], str(row["groups"]), f"{row['units']:,}", f"{row['parameters']:,}", share)
        self.console.print(table)
        size = gated.size_model
        must = f"at most {gated.gates.budget:,} will stay, {size.floor:,} at least must"
        self.console.print(f"{size.total:,} {size.counts}; {must}")
        for name, value in task.facts.items():
            self.console.print(f"{name}: {value}")
        self.console.print(f"recipe: {config.recipe}; every group proved; run directory: {folder}")

    def stage_begins(self, name: str, steps: int, done: int) -> None:
        """Begin a progress bar."""
        self._end_stage()
        title = {"joint": "step 1, distil and prune", "further": "step 2, distil further"}.get(name, name)
        if not self.live:
            self.console.print(f"{title}: {steps} steps" + (f", going on from {done}" if done else ""))
            return
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            console=self.console,
        )
        self._bar = self._progress.add_task(title, total=steps, completed=done, left="")
        self._display = Live(self._progress, console=self.console, refresh_per_second=4)
        self._display.start()

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
        self.console.print(report_table(report))
        self.console.print(f"files: {report.run_directory}/ (model.safetensors, model.json, report.json, ...)")
        self.console.print(f'open it: l0prune.load("{report.run_directory}")')

    def _end_stage(self) -> None:
        if self._display is not None:
            self._display.stop()
        self._progress = self._display = None


def report_table(report: CompressionReport) -> Table:
    """Before and after."""
    table = Table(title=f"{report.teacher} at sparsity {report.sparsity:.4f}", title_justify="left")
    for heading in ("", "before", "after", "ratio"):
        table.add_column(heading, justify="left" if not heading else "right")
    ratio = report.params_before / report.params_after
    table.add_row("parameters", f"{report.params_before:,}", f"{report.params_after:,}", f"{ratio:.2f}x")
    ratio = report.macs_before / max(1, report.macs_after)
    macs = f"MACs per {report.macs_per.split(',')[0]}"
    table.add_row(macs, quantity(report.macs_before), quantity(report.macs_after), f"{ratio:.2f}x")
    losses = (
        ("loss before the cut", report.distill_loss_before_removal),
        ("loss after the cut", report.distill_loss_after_removal),
        ("loss at the end", report.distill_loss_final),
    )
    for name, loss in losses:
        if loss is not None:
            table.add_row(name, "", f"{loss:.4f}", "")
    table.add_row("gated against pruned", "", f"{report.max_relative_difference:.1e}", "")
    minutes = sum(report.stage_seconds.values()) / 60
    table.add_row("training", "", f"{minutes:.1f} min", "")
    return table


def group_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One row a prune group."""
    table = Table(title="Prune groups", title_justify="left")
    for heading in ("group", "kind", "units", "parameters a unit", "proved"):
        justify = "right" if heading in ("units", "parameters a unit") else "left"
        # What a group is called ends in what tells it from the others.
        table.add_column(heading, justify=justify, overflow="fold" if heading == "group" else "ellipsis")
    for row in rows:
        proved = "yes" if row["proved"] else row["reason"]
        table.add_row(row["name"], row["kind"], f"{row['units']:,}", f"{row['unit_parameters']:,}", proved)
    return table


def plugin_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One row a plugin."""
    table = Table("plugin", "description", "recipes")
    for row in rows:
        table.add_row(row["name"], row["description"], ", ".join(row["recipes"]))
    return table


def format_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One row a format."""
    table = Table("format", "file", "what it holds")
    for row in rows:
        table.add_row(row["name"], row["suffix"] or "folder", row["holds"])
    return table


def export_lines(export: Export) -> str:
    """What was written, and how far its outputs are from the network's."""
    first = (
        f"{export.path}: {export.format}, {export.parameters:,} parameters; "
        f"its outputs differ by {export.max_relative_difference:.1e} at most (relative)"
    )
    return "\n".join([first, *(f"  {note}" for note in export.notes)])


def measurement_tables(measurement: Measurement) -> list[Table]:
    """What the models are, and a row for each variant of each model under each load."""
    title = f"{measurement.processor}, torch {measurement.versions['torch']}"
    models = Table("model", title=title, title_justify="left")
    for heading in ("parameters", "MACs", "file", "load", "peak memory"):
        models.add_column(heading, justify="right")
    for name, facts in measurement.models.items():
        seconds, size, peak = (facts.get(key) for key in ("load_seconds", "file_bytes", "peak_memory_bytes"))
        models.add_row(
            name,
            f"{facts['parameters']:,}" if facts["parameters"] else "",
            quantity(facts["macs"]) if facts["macs"] else "",
            f"{size / 1e6:.1f} MB" if size else "",
            f"{seconds:.2f} s" if seconds else "",
            f"{peak / 1e6:.0f} MB" if peak else "",
        )
    rows = Table("load", "model", "dtype", "backend")
    for heading in (
        "batch",
        "threads",
        "latency",
        "95 %",
        "spread",
        "real-time factor",
        "times faster (95 % interval)",
    ):
        rows.add_column(heading, justify="right")
    for row in measurement.rows:
        ratio = row.speedup
        rows.add_row(
            row.load,
            row.model,
            row.dtype,
            row.backend,
            str(row.batch),
            str(row.threads),
            f"{row.latency_ms:.2f} ms",
            f"{row.latency_p95_ms:.2f} ms",
            f"{row.spread:.1%}",
            f"{row.real_time_factor:.4f}" if row.real_time_factor else "",
            f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})" if ratio else "",
        )
    return [models, rows]


def _status(record: Record, unit: str) -> str:
    pieces = [f"loss {record.loss:.4f}"]
    if record.sparsity is not None and record.target is not None:
        pieces.append(f"sparsity {record.sparsity:.3f} / {record.target:.3f}")
    if record.multipliers is not None:
        pieces.append("lambda {:+.3f} {:+.3f}".format(*record.multipliers))
    pieces.append(f"{record.amount_per_second:.0f} {unit}/s")
    return "  ".join(pieces)


def _parts(record: Record) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in record.parts.items())
