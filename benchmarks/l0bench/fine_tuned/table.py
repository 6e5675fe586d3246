"""Rows as a table in Markdown."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from l0prune import write_atomic

Row = dict[str, Any]
_NAMES = {"ctc": "character errors, %", "speaker": "equal error rate, %", "frames": "frame errors, %"}


def line(row: Row) -> str:
    """One row, while it runs."""
    what = f"{row['task']} {row['method']} {row['size']} % {row['steps']} steps seed {row['seed']}"
    if "failed" in row:
        return f"{what}: failed: {row['failed']}"
    return f"{what}: {100 * row['error']:.2f} %, {row['parameters']:,} parameters, {row['seconds_in_all']:.0f} s"


def write(rows: Iterable[Row], results: Path) -> Path:
    """Beside the rows' file: NAME.md."""
    there, table = [row for row in rows if "error" in row], results.with_suffix(".md")
    write_atomic(table, lambda path: path.write_text(_markdown(there), encoding="utf-8"))
    return table


def _markdown(rows: Sequence[Row]) -> str:
    lines = [
        "# Fine-tuned networks, compressed with their heads",
        "",
        "The embedded teacher, fine-tuned on real labelled clips of five speakers, one a language (characters: of the "
        "English one). ± is the deviation between seeds of the compression. The interval of 95 % is bootstrapped over "
        "the test clips, of the lowest seed. A deviation of the dense network is a quarter of its interval.",
        "",
    ]
    for task in dict.fromkeys(row["task"] for row in rows):
        lines += [f"## {task}", "", *_table([row for row in rows if row["task"] == task], _NAMES[task]), ""]
    return "\n".join(lines)


def _table(rows: Sequence[Row], metric: str) -> list[str]:
    heads = ("removed, %", "beside the last layer", "steps", "seeds", metric, "interval", "from dense", "M")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    dense = next((row for row in rows if row["method"] == "dense"), None)
    groups: dict[tuple, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row["size"], row["steps"], row["error"])):
        groups.setdefault((row["size"], row["method"], row["steps"]), []).append(row)
    for (size, method, steps), group in groups.items():
        errors = [100 * row["error"] for row in group]
        spread = f" ± {statistics.stdev(errors):.2f}" if len(errors) > 1 else ""
        millions = statistics.mean(row["parameters"] for row in group) / 1e6
        interval = min(group, key=lambda row: row["seed"]).get("interval")
        within = f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f}" if interval else ""
        mean = statistics.mean(errors)
        cells = (f"{size}", method, f"{steps or ''}", f"{len(group)}", f"{mean:.2f}{spread}", within)
        lines.append(f"| {' | '.join((*cells, _from_dense(mean / 100, method, dense), f'{millions:.2f}'))} |")
    return lines


def _from_dense(error: float, method: str, dense: Row | None) -> str:
    """In deviations of the dense network's score."""
    if dense is None or method == "dense" or not dense.get("interval"):
        return ""
    low, high = dense["interval"]
    return f"{(error - dense['error']) / (high - low) * 4:+.1f} deviations" if high > low else ""
