"""Rows as a table with who is ahead by how much, and as a picture."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from l0prune import write_atomic

Row = dict[str, Any]
Cell = tuple[str, int, int]
"""Network, steps, size."""


def line(row: Row) -> str:
    """One row, while it runs."""
    what = f"{row['network']} {row['label']} {row['size']} % {row['steps']} steps rate {row['rate']:g}"
    if "failed" in row:
        return f"{what} seed {row['seed']}: failed: {row['failed']}"
    part = "validation" if row["trial"] else "test"
    accuracy = row["validation_accuracy"] if row["trial"] else row["accuracy"]
    return f"{what} seed {row['seed']}: {100 * accuracy:.1f} % ({part}), {row['seconds']:.1f} s"


def cells(rows: Iterable[Row]) -> dict[Cell, dict[str, list[Row]]]:
    """Results by network, steps and size, then by label; of several rates the one with most seeds."""
    found: dict[Cell, dict[str, dict[float, list[Row]]]] = {}
    for row in rows:
        if not row["trial"] and row["method"] != "dense" and "accuracy" in row:
            cell = (row["network"], row["steps"], row["size"])
            found.setdefault(cell, {}).setdefault(row["label"], {}).setdefault(row["rate"], []).append(row)
    return {
        cell: {label: max(by_rate.values(), key=len) for label, by_rate in labels.items()}
        for cell, labels in found.items()
    }


def lead(one: Sequence[float], other: Sequence[float]) -> float | None:
    """By how many deviations one is ahead of the other: the larger one of the two; None where there is none."""
    if min(len(one), len(other)) < 2:
        return None
    deviation = max(statistics.stdev(one), statistics.stdev(other))
    return (statistics.mean(one) - statistics.mean(other)) / deviation if deviation else None


def write(rows: Sequence[Row], results: Path) -> list[Path]:
    """NAME.md and NAME.png beside the rows' file."""
    table, picture = results.with_suffix(".md"), results.with_suffix(".png")
    write_atomic(table, lambda path: path.write_text(_markdown(rows), encoding="utf-8"))
    _draw(rows, picture)
    return [table, picture]


def _accuracies(rows: Sequence[Row]) -> list[float]:
    return [100 * row["accuracy"] for row in rows]


def _figure(values: Sequence[float], digits: int = 1) -> str:
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


def _markdown(rows: Sequence[Row]) -> str:
    found = cells(rows)
    labels = sorted({label for cell in found.values() for label in cell}, key=lambda name: (name != "wrap", name))
    lines = [
        "# Digits, pruned in one's own loop",
        "",
        "Test accuracy in %, ± the deviation between seeds. The lead is wrap's over the best other method, "
        "in deviations (the larger one of the two).",
        "",
    ]
    for network in dict.fromkeys(cell[0] for cell in found):
        dense = [row for row in rows if row["method"] == "dense" and row["network"] == network]
        if dense:
            lines += [f"## {network}: {dense[0]['parameters']:,} parameters, dense {_figure(_accuracies(dense))}", ""]
        lines.append(f"| steps | removed, % | {' | '.join(labels)} | best other | lead |")
        lines.append("|---" * (len(labels) + 4) + "|")
        for cell in sorted(cell for cell in found if cell[0] == network):
            lines.append(_line(cell, found[cell], labels))
        lines += ["", *_tracking(network, found), ""]
    return "\n".join(lines) + "\n"


def _line(cell: Cell, methods: dict[str, list[Row]], labels: Sequence[str]) -> str:
    figures = [_figure(_accuracies(methods[label])) if label in methods else "" for label in labels]
    others = [label for label in methods if not label.startswith("wrap")]
    best, ahead = "", ""
    if others and "wrap" in methods:
        best = max(others, key=lambda label: statistics.mean(_accuracies(methods[label])))
        deviations = lead(_accuracies(methods["wrap"]), _accuracies(methods[best]))
        ahead = "" if deviations is None else f"{deviations:+.1f}"
    return f"| {cell[1]} | {cell[2]} | {' | '.join(figures)} | {best} | {ahead} |"


def _tracking(network: str, found: dict[Cell, dict[str, list[Row]]]) -> list[str]:
    """How well the gates followed their target, and what the cut cost: the worst of the seeds."""
    lines = ["| steps | removed, % | label | largest deviation of the expected size | loss before the cut, after it |"]
    lines.append("|---" * 5 + "|")
    for cell in sorted(cell for cell in found if cell[0] == network):
        for label, mine in sorted(found[cell].items()):
            if "gated_steps" not in mine[0]:
                continue
            deviation = max((row["largest_deviation"] or 0.0 for row in mine), default=0.0)
            worst = max(mine, key=lambda row: row["loss_after_cut"] - row["loss_before_cut"])
            losses = f"{worst['loss_before_cut']:.3f}, {worst['loss_after_cut']:.3f}"
            lines.append(f"| {cell[1]} | {cell[2]} | {label} | {deviation:.4f} | {losses} |")
    return lines


def _draw(rows: Sequence[Row], path: Path) -> None:
    """Accuracy against the share of parameters left: a row of panels a network, a column a number of steps."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    found = cells(rows)
    networks = list(dict.fromkeys(cell[0] for cell in found)) or [""]
    steps = sorted({cell[1] for cell in found}) or [0]
    labels = sorted({label for cell in found.values() for label in cell}, key=lambda name: (name != "wrap", name))
    colours = {label: "black" if label == "wrap" else colormaps["tab10"](i % 10) for i, label in enumerate(labels)}
    figure = Figure(figsize=(4.2 * len(steps), 3.2 * len(networks) + 0.6), layout="constrained")
    panels = figure.subplots(len(networks), len(steps), squeeze=False)
    handles = {}
    for network, across in zip(networks, panels, strict=True):
        dense = [100 * row["accuracy"] for row in rows if row["method"] == "dense" and row["network"] == network]
        for count, axes in zip(steps, across, strict=True):
            if dense:
                handles["dense"] = axes.axhline(statistics.mean(dense), color="0.5", linestyle=":")
            for number, label in enumerate(labels):
                here = [cell for cell in found if cell[:2] == (network, count) and label in found[cell]]
                mine = {cell[2]: found[cell][label] for cell in here}
                if not mine:
                    continue
                sizes = sorted(mine)
                values = [_accuracies(mine[size]) for size in sizes]
                spread = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in values]
                at = [100 - size + 0.5 * (number - len(labels) / 2) for size in sizes]
                means = [statistics.mean(v) for v in values]
                style: dict[str, Any] = {"marker": "o", "markersize": 3, "capsize": 2, "color": colours[label]}
                handles[label] = axes.errorbar(at, means, spread, **style)
            axes.set_title(f"{network}, {count} steps")
            axes.set_xlabel("parameters left (%)")
            axes.set_ylabel("test accuracy (%)")
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=5)
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=110))
