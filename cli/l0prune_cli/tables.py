"""Results as the terminal shows them."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.table import Column, Table

from l0prune.adapters.console import add_numbers, fitted, make_console
from l0prune.support import counted, plain, quantity, score

if TYPE_CHECKING:
    from l0prune import Evaluation, Export, Measurement, Pareto, Score, Verification
    from l0prune.measuring import Row


def print_result(document: Any, *shown: RenderableType, as_json: bool) -> None:
    """Print what a command found: one JSON document on stdout, or what people read."""
    if as_json:
        print(json.dumps(document, indent=1))
        return
    console = make_console()
    for part in shown:
        console.print(fitted(part, console.width))


def doctor_tables(found: Mapping[str, Any]) -> list[RenderableType]:
    """What is installed, devices, folders, plugins, and what is wrong."""
    packages = Table("package", "version", title=f"l0prune {found['l0prune']}", title_justify="left")
    packages.add_row("python", f"{found['python']} ({found['executable']})")
    for name, number in found["packages"].items():
        packages.add_row(name, number or "not installed")
    devices = Table("device", "what it is", title=f"{found['platform']}", title_justify="left")
    for device in found["devices"]:
        more = f", {found['threads']} of {found['cores']} threads" if device["name"] == "cpu" else ""
        devices.add_row(device["name"], device["what"] + more)
    folders = Table("folder", Column("path", overflow="fold"), "can be written")
    for folder in found["folders"]:
        folders.add_row(folder["what"], folder["path"] or "none", "yes" if folder["writable"] else "no")
    plugins = Table("plugin", "state")
    for row in found["plugins"]:
        plugins.add_row(row["name"], row["problem"] or "works")
    last = [f"to mend: {problem}" for problem in found["problems"]] or ["nothing is wrong"]
    return [packages, devices, folders, plugins, *last]


def group_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One row a prune group."""
    table = Table(title="Prune groups", title_justify="left")
    # What a group is called ends in what tells it from the others.
    table.add_column("group", overflow="fold")
    table.add_column("kind")
    add_numbers(table, "units")
    table.add_column("parameters a unit", justify="right")
    table.add_column("proved")
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


def verification_table(verification: "Verification") -> Table:
    """One row a check."""
    table = Table("check", "holds", title=verification.source, title_justify="left")
    table.add_column("what was found", overflow="fold")
    for check in verification.checks:
        table.add_row(check.name, {True: "yes", False: "NO", None: "not checked"}[check.holds], check.said)
    return table


def pareto_table(drawn: "Pareto") -> Table:
    """One row a run."""
    table = Table(Column("run", overflow="fold"))
    add_numbers(table, drawn.x, drawn.y)
    table.add_column("dominated by", overflow="fold")
    for point in drawn.points:
        table.add_row(point.run, plain(point.x), score(point.y, point.y_deviation), point.dominated_by or "")
    return table


def export_lines(export: "Export") -> str:
    """What was written, and how far its outputs are from the network's."""
    differ = f"its outputs differ by {export.max_relative_difference:.1e} at most (relative)"
    notes = list(export.notes)
    if export.signal_to_noise_db is not None:
        differ = f"its outputs have a signal-to-noise ratio of {export.signal_to_noise_db:.1f} dB at least"
        notes.insert(0, _size_line(export))
    first = f"{export.path}: {export.format}, {export.parameters:,} parameters; {differ}"
    return "\n".join([first, *(f"  {note}" for note in notes)])


def _size_line(export: "Export") -> str:
    """Size on disk, beside the network's and the dense one's in float32."""
    size = export.file_bytes or 0
    said = f"{size / 1e6:.2f} MB on disk"
    for name, whole in (("its parameters in float32", export.float32_bytes), ("before pruning", export.dense_bytes)):
        if whole and size:
            said += f"; {name} {whole / 1e6:.2f} MB, {whole / size:.1f} times as much"
    return said


def measurement_tables(measurement: "Measurement") -> list[Table]:
    """What the models are, and a row for each variant of each model under each load."""
    title = f"{measurement.processor}, torch {measurement.versions['torch']}"
    models = Table("model", title=title, title_justify="left")
    add_numbers(models, "parameters", "MACs", "file", "load", "peak memory")
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
    return [models, _row_table(measurement)]


_ALIKE = ("load", "batch", "threads", "dtype", "backend")
"""What is said once, above the table, where it is the same in all rows."""


def _row_table(measurement: "Measurement") -> Table:
    """A row for each variant, narrow enough for two models in two dtypes in 80 columns."""
    rows = measurement.rows
    varied = [name for name in _ALIKE if len({getattr(row, name) for row in rows}) > 1]
    said = [f"{name} {getattr(rows[0], name)}" for name in _ALIKE if rows and name not in varied]
    said += ["times in ms"]
    energy = [f"energy: {measurement.energy}"] if measurement.energy else []
    title = "\n".join([", ".join(said), *energy, *measurement.notes])
    table = Table("model", title=title, title_justify="left")
    for name in varied:
        table.add_column(name, justify="right" if name in ("batch", "threads") else "left")
    columns = _columns(measurement)
    add_numbers(table, *columns)
    for row in rows:
        table.add_row(
            row.model, *(str(getattr(row, name)) for name in varied), *(columns[name](row) for name in columns)
        )
    return table


def _columns(measurement: "Measurement") -> dict[str, "Callable[[Row], str]"]:
    """The columns that there are numbers for."""

    def faster(row: "Row") -> str:
        ratio = row.speedup
        return f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})" if ratio else ""

    columns: dict[str, Callable[[Row], str]] = {
        "first": lambda row: "" if row.first_ms is None else f"{row.first_ms:.4g}",
        "ms": lambda row: f"{row.latency_ms:.4g}",
        "95 %": lambda row: f"{row.latency_p95_ms:.4g}",
    }
    if any(row.real_time_factor for row in measurement.rows):
        columns["RTF"] = lambda row: f"{row.real_time_factor:.4f}" if row.real_time_factor else ""
    if any(row.joules is not None for row in measurement.rows):
        columns["J"] = lambda row: "" if row.joules is None else f"{row.joules:.3g}"
    if any(row.speedup for row in measurement.rows):
        columns["times faster"] = faster
    return columns


def evaluation_tables(evaluation: "Evaluation") -> list[Table]:
    """Scores of all models, with chance as the last row, then the layers beside the teacher's."""
    tables = [_scores(evaluation)]
    return [*tables, _layers(evaluation)] if evaluation.layers else tables


def _scores(evaluation: "Evaluation") -> Table:
    seeds = len(evaluation.seeds)
    title = "Networks through their own heads: score, and 95 % interval over clips"
    if seeds:
        title = f"Probes on frozen hidden states, {counted(seeds, 'seed')}{': mean ± deviation' if seeds > 1 else ''}"
    if evaluation.shuffled_labels:
        title += "; labels SHUFFLED"
    table = Table("model", title=title, title_justify="left")
    add_numbers(table, "parameters")
    for name, facts in evaluation.tasks.items():
        arrow = "↑" if facts["higher_is_better"] else "↓"
        table.add_column(f"{name}, {facts['metric']} {arrow}", justify="right")
    found = {(score.model, score.task): score for score in evaluation.scores}
    for model, facts in evaluation.models.items():
        size = f"{facts['parameters']:,}" if facts["parameters"] else ""
        table.add_row(model, size, *(_score(found[model, task]) for task in evaluation.tasks))
    chances = [facts["chance"] for facts in evaluation.tasks.values()]
    if any(chance is not None for chance in chances):
        table.add_row("chance", "", *("" if chance is None else f"{100 * chance:.1f} %" for chance in chances))
    return table


def _score(score: "Score") -> str:
    spread = "" if score.deviation is None else f" ± {100 * score.deviation:.1f}"
    interval = score.facts.get("interval")
    within = f" ({100 * interval[0]:.1f} to {100 * interval[1]:.1f})" if interval else ""
    return f"{100 * score.mean:.1f}{spread} %{within}"


def _layers(evaluation: "Evaluation") -> Table:
    title = f"Layers beside those of {evaluation.against}"
    table = Table("model", title=title, title_justify="left")
    measures = list(dict.fromkeys(name for layer in evaluation.layers for name in layer.measures))
    add_numbers(table, "layer", "teacher's", *measures)
    for layer in evaluation.layers:
        values = (layer.measures[name] for name in measures)
        shown = ("" if value is None else f"{value:.3f}" for value in values)
        table.add_row(layer.model, str(layer.layer), str(layer.teacher_layer), *shown)
    return table
