"""Rows of `compress` as a table in Markdown."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from l0prune import write_atomic

Row = dict[str, Any]
_TITLES = (
    "part",
    "removed, %",
    "settings",
    "objective",
    "steps",
    "seeds",
    "word errors, capped, %",
    "interval",
    "plain, %",
    "parameters, M",
    "loss after the cut",
    "minutes",
)


def line(row: Row) -> str:
    """One row, while it runs."""
    what = f"{row['label']} {row['part']} {row['size']} % {row['steps']} steps {row['objective']} seed {row['seed']}"
    if "failed" in row:
        return f"{what}: failed: {row['failed']}"
    errors = f"capped {100 * row['errors_capped']:.1f} %, plain {100 * row['errors_plain']:.1f} %"
    return f"{what}: {errors}, {row['parameters']:,} parameters, {row['seconds']:.0f} s, {row['seconds_in_all']} in all"


def write(rows: Iterable[Row], results: Path) -> Path:
    """Write NAME.md beside the rows' file, and return its path."""
    table = results.with_suffix(".md")
    write_atomic(table, lambda path: path.write_text(_markdown(list(rows)), encoding="utf-8"))
    return table


def _markdown(rows: Sequence[Row]) -> str:
    cells: dict[tuple, list[Row]] = {}
    for row in rows:
        if "failed" not in row:
            key = (row["part"], row["size"], row["objective"], row["steps"], row["label"])
            cells.setdefault(key, []).append(row)
    ordered = sorted(
        cells.values(),
        key=lambda mine: (mine[0]["size"] > 0, mine[0]["part"], mine[0]["size"], _mean(mine, "errors_capped")),
    )
    lines = [
        "# Whisper tiny.en through compress",
        "",
        "Removed is the share of the part's parameters; the table of tokens (19.9 M) is not counted in it, but is in "
        "the parameters. The interval is the bootstrap's of 95 % over prompts, averaged over seeds.",
        "",
        f"| {' | '.join(_TITLES)} |",
        "|---" * len(_TITLES) + "|",
        *map(_line, ordered),
    ]
    return "\n".join(lines) + "\n"


def _line(mine: Sequence[Row]) -> str:
    first = mine[0]
    ends = [100 * statistics.mean(row["errors_capped_interval"][i] for row in mine) for i in (0, 1)]
    errors = f"{100 * _mean(mine, 'errors_capped'):.1f}"
    if len(mine) > 1:
        errors += f" ± {100 * statistics.stdev(row['errors_capped'] for row in mine):.1f}"
    dense = first["label"] == "dense"
    figures = [
        "" if dense else first["part"],
        "" if dense else f"{first['size']}",
        first["label"],
        "" if dense else first["objective"],
        "" if dense else f"{first['steps']}",
        f"{len(mine)}",
        errors,
        f"{ends[0]:.1f} to {ends[1]:.1f}",
        f"{100 * _mean(mine, 'errors_plain'):.0f}",
        f"{_mean(mine, 'parameters') / 1e6:.1f}",
        "" if dense else f"{_mean(mine, 'loss_after_cut'):.2f}",
        "" if dense else f"{_mean(mine, 'seconds') / 60:.1f}",
    ]
    return f"| {' | '.join(figures)} |"


def _mean(rows: Sequence[Row], key: str) -> float:
    return statistics.mean(row[key] for row in rows)
