"""Rows as a table in Markdown, and as pictures."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from l0bench.recognition.plan import MAX_NORM, OBJECTIVE
from l0prune import write_atomic

Row = dict[str, Any]
_COLUMNS = (
    ("word errors, capped, %", "errors_capped", 100, 1),
    ("plain, %", "errors_plain", 100, 0),
    ("nats a token", "nats", 1, 3),
    ("distance, last layer", "distance_last", 1, 3),
    ("loss after the cut", "loss_after_cut", 1, 2),
    ("minutes of a core", "processor_seconds", 1 / 60, 1),
)


def line(row: Row) -> str:
    """One row, while it runs."""
    what = f"{row['label']} {row['size']} % {row['steps']} steps {row['objective']}"
    what += f" rate {row['rate']:g} seed {row['seed']}"
    if "failed" in row:
        return f"{what}: failed: {row['failed']}"
    if row["trial"]:
        return f"{what}: {row['validation_nats']:.3f} nats on validation prompts"
    errors = f"capped {100 * row['errors_capped']:.1f} %, plain {100 * row['errors_plain']:.1f} %"
    seconds = f"{row['seconds']:.0f} s, {row['seconds_in_all']:.0f} s in all"
    return f"{what}: {row['nats']:.3f} nats, {errors}, {row['parameters']:,} parameters, {seconds}"


def shown(rows: Iterable[Row]) -> list[Row]:
    """Results without trials and failures; of a cell's rates that with most seeds, a searched one before others."""
    results = [row for row in rows if not row["trial"] and "nats" in row and row["method"] != "dense"]
    searched = {(*_cell(row), row["rate"]) for row in rows if row["trial"]}
    best: dict[tuple, tuple] = {}
    for row in results:
        mine = [other for other in results if _cell(other) == _cell(row) and other["rate"] == row["rate"]]
        rank = (len(mine), row["rate"] in {key[-1] for key in searched if key[:-1] == _cell(row)}, -row["rate"])
        best[_cell(row)] = max(best.get(_cell(row), (0, False, 0.0, 0.0)), (*rank, row["rate"]))
    return [row for row in results if best[_cell(row)][-1] == row["rate"]]


def _cell(row: Row) -> tuple:
    return (row["objective"], row["steps"], row["size"], row["label"], row["precision"], row.get("max_norm"))


def write(rows: Sequence[Row], results: Path) -> list[Path]:
    """Beside the rows' file: NAME.md, and pictures of capped word errors and of nats.

    Args:
        rows: All.
        results: The file that they are in.
    """
    from l0bench.recognition.figure import draw

    there, dense = shown(rows), next((row for row in rows if row["method"] == "dense"), None)
    table = results.with_suffix(".md")
    write_atomic(table, lambda path: path.write_text(_markdown(there, dense), encoding="utf-8"))
    pictures = [results.with_name(f"{results.stem}-{name}.png") for name in ("errors", "nats")]
    for path, key in zip(pictures, ("errors_capped", "nats"), strict=True):
        draw(there, dense, key, path)
    return [table, *pictures]


def _markdown(rows: Sequence[Row], dense: Row | None) -> str:
    lines = ["# Whisper tiny.en's encoder, pruned", ""]
    if dense:
        low, high = dense["errors_capped_interval"]
        lines += [
            f"Dense: {100 * dense['errors_capped']:.1f} % capped word errors ({100 * low:.1f} to {100 * high:.1f}), "
            f"{100 * dense['errors_plain']:.0f} % plain, {dense['nats']:.3f} nats a token, "
            f"{dense['parameters']:,} parameters. ± is the deviation between seeds; the interval is the bootstrap's of "
            "95 % over prompts, averaged over seeds. Rows without minutes were measured before the processor's time "
            "was noted.",
            "",
        ]
    for objective, steps, norm in sorted(
        {_part(row) for row in rows}, key=lambda x: (x[2] != MAX_NORM, x[0] != OBJECTIVE, x[:2])
    ):
        gradients = "gradients as they are" if norm is None else f"gradients of norm {norm:g} at most"
        lines += [f"## {steps} steps, objective {objective}, {gradients}", ""]
        titles = ["removed, %", "method", "seeds", "rate", *[name for name, *_ in _COLUMNS], "interval, capped, %"]
        lines += [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
        mine = [row for row in rows if _part(row) == (objective, steps, norm)]
        for size in sorted({row["size"] for row in mine}):
            lines += _of_size([row for row in mine if row["size"] == size])
        lines.append("")
    return "\n".join(lines) + "\n"


def _part(row: Row) -> tuple:
    return (row["objective"], row["steps"], row.get("max_norm"))


def _of_size(rows: Sequence[Row]) -> list[str]:
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault((row["label"], row["precision"]), []).append(row)
    ordered = sorted(groups.items(), key=lambda item: statistics.mean(row["errors_capped"] for row in item[1]))
    lines = []
    for (label, precision), mine in ordered:
        name = label if precision == "float32" else f"{label} ({precision})"
        figures = [_figure([row.get(key) for row in mine], scale, digits) for _, key, scale, digits in _COLUMNS]
        ends = [100 * statistics.mean(row["errors_capped_interval"][i] for row in mine) for i in (0, 1)]
        head = [f"{mine[0]['size']}", name, f"{len(mine)}", f"{mine[0]['rate']:g}"]
        lines.append(f"| {' | '.join([*head, *figures, f'{ends[0]:.1f} to {ends[1]:.1f}'])} |")
    return lines


def _figure(values: Sequence[float | None], scale: float, digits: int) -> str:
    there = [scale * value for value in values if value is not None]
    if not there:
        return ""
    deviation = f" ± {statistics.stdev(there):.{digits}f}" if len(there) > 1 else ""
    return f"{statistics.mean(there):.{digits}f}{deviation}"
