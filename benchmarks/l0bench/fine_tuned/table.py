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
        "The embedded teacher, fine-tuned on real labelled clips of five speakers, one a language. ± is the deviation "
        "between seeds of the compression.",
        "",
    ]
    for task in dict.fromkeys(row["task"] for row in rows):
        lines += [f"## {task}", "", f"| removed, % | beside the last layer | steps | seeds | {_NAMES[task]} | M |"]
        lines.append("|---|---|---|---|---|---|")
        mine = [row for row in rows if row["task"] == task]
        groups: dict[tuple, list[Row]] = {}
        for row in sorted(mine, key=lambda row: (row["size"], row["steps"], row["error"])):
            groups.setdefault((row["size"], row["method"], row["steps"]), []).append(row)
        for (size, method, steps), group in groups.items():
            errors = [100 * row["error"] for row in group]
            spread = f" ± {statistics.stdev(errors):.2f}" if len(errors) > 1 else ""
            millions = statistics.mean(row["parameters"] for row in group) / 1e6
            cells = [f"{size}", method, f"{steps or ''}", f"{len(group)}", f"{statistics.mean(errors):.2f}{spread}"]
            lines.append(f"| {' | '.join([*cells, f'{millions:.2f}'])} |")
        lines.append("")
    return "\n".join(lines)
