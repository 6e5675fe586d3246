"""The comparison as pictures: quality against parameters, and every method at one size."""

from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

from l0bench.students.entries import BASELINES, METHOD
from l0bench.students.scoring import NORMALISED, RANDOM
from l0bench.students.summary import best_baseline, is_plain
from l0prune.report.figures import legend_below
from l0prune.support import write_atomic

_COLUMNS = 2
_NAMES = {METHOD: "gates learned with the weights"}


def draw_sizes(results: Mapping[str, Any], path: Path) -> bool:
    """Quality against parameters, a panel for each task and one for the loss.

    The method, and the baselines of which there are several sizes; the best one of a single size where there are none.

    Args:
        results: What `ablations.py` writes.
        path: A PNG file to write.

    Returns:
        Whether there was something to draw: the method at two sizes at least.
    """
    tasks, rows = results["tasks"], results["entries"]
    lines = {start: _sizes(rows, start) for start in (METHOD, *BASELINES)}
    if len(lines[METHOD]) < 2:
        return False
    rivals = [start for start in BASELINES if len(lines[start]) > 1]
    best = best_baseline(rows, tasks, results["target_sparsity"])
    lines = {start: lines[start] for start in (METHOD, *(rivals or [best])) if start}
    figure, axes = _panels(1 + len(tasks))
    for start, own in lines.items():
        label = _NAMES.get(start, f"baseline: {start}")
        _line(axes[0], [r for r in own if r["loss"]], lambda r: r["loss"], 1, label)
        for axis, task in zip(axes[1:], tasks, strict=False):
            _line(axis, [r for r in own if task in r["scores"]], lambda r, task=task: r["scores"][task], 100, label)
    axes[0].set_title("distillation loss on held-out audio, lower is better", fontsize=9)
    for axis, (task, facts) in zip(axes[1:], tasks.items(), strict=False):
        axis.set_title(_title(task, facts), fontsize=9)
        for reference, style in zip(_drawn(results), ("-", "--"), strict=False):
            value = 100 * reference["scores"][task]["mean"]
            axis.axhline(value, color="0.5", linestyle=style, linewidth=1, label=reference["name"])
    for axis in axes:
        axis.set_xlabel("parameters (million)", fontsize=8)
        axis.grid(alpha=0.3)
    legend_below(figure, axes, columns=5, letters=180)
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))
    return True


def draw_methods(results: Mapping[str, Any], path: Path) -> bool:
    """Every entry of the comparison's own size as a bar, a panel for each task and one for the loss.

    Args:
        results: What `ablations.py` writes.
        path: A PNG file to write.

    Returns:
        Whether there was something to draw.
    """
    tasks = results["tasks"]
    rows = [r for r in results["entries"] if r["target_sparsity"] == results["target_sparsity"]]
    if not rows:
        return False
    figure, axes = _panels(1 + len(tasks), height=1.2 + 0.2 * len(rows))
    figure.suptitle("blue: the method; orange: baselines; green: variants of the method", fontsize=10)
    _bars(axes[0], [r for r in rows if r["loss"]], lambda r: r["loss"], 1)
    axes[0].set_title("distillation loss on held-out audio, lower is better", fontsize=9)
    for axis, (task, facts) in zip(axes[1:], tasks.items(), strict=False):
        _bars(axis, [r for r in rows if task in r["scores"]], lambda r, task=task: r["scores"][task], 100)
        for reference, style in zip(_drawn(results), ("-", "--"), strict=False):
            value = 100 * reference["scores"][task]["mean"]
            axis.axvline(value, color="black", linestyle=style, linewidth=1, label=reference["name"])
        axis.set_title(_title(task, facts), fontsize=9)
    legend_below(figure, axes, columns=5, letters=180)
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))
    return True


def _drawn(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The references among which students lie; those near chance would squeeze them into a corner."""
    return [r for r in results["references"] if not r["name"].startswith(RANDOM) and r["name"] != NORMALISED]


def _title(task: str, facts: Mapping[str, Any]) -> str:
    better = "higher" if facts["higher_is_better"] else "lower"
    return f"{task}: {facts['metric']} (%), {better} is better"


def _panels(count: int, height: float = 3.2) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    rows, columns = -(-count // _COLUMNS), min(count, _COLUMNS)
    figure = Figure(figsize=(5 * columns, height * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes:
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    for unused in axes[count:]:
        unused.set_visible(False)
    return figure, axes[:count]


def _sizes(rows: Sequence[Mapping[str, Any]], start: str) -> list[Mapping[str, Any]]:
    """The rows of one method that differ in size alone."""
    return sorted((r for r in rows if r["start"] == start and is_plain(r)), key=lambda r: r["parameters"])


def _line(axis: Any, rows: Sequence[Mapping[str, Any]], of: Any, scale: float, label: str) -> None:
    if rows:
        axis.errorbar(
            [r["parameters"] / 1e6 for r in rows],
            [scale * of(r)["mean"] for r in rows],
            [scale * _deviation(of(r)) for r in rows],
            marker="o",
            capsize=3,
            label=label,
        )


def _bars(axis: Any, rows: Sequence[Mapping[str, Any]], of: Any, scale: float) -> None:
    colours = ["C0" if r["name"] == "full" else "C1" if r["start"] != METHOD else "C2" for r in rows]
    places = range(len(rows))
    deviations = [scale * _deviation(of(r)) for r in rows]
    axis.barh(places, [scale * of(r)["mean"] for r in rows], xerr=deviations, color=colours, capsize=2)
    axis.set_yticks(places, [r["name"] for r in rows], fontsize=7)
    axis.invert_yaxis()


def _deviation(found: Mapping[str, Any]) -> float:
    """A single seed has none, and gets no bar."""
    return found["deviation"] if len(found["values"]) > 1 else nan
