"""Word errors or nats against what is left, a panel for each number of steps and objective."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from l0bench.recognition.plan import OBJECTIVE
from l0prune import write_atomic

Row = dict[str, Any]
_NAMES = {"errors_capped": ("word errors, capped (%)", 100), "nats": ("nats a token", 1)}


def draw(rows: Sequence[Row], dense: Row | None, key: str, path: Path) -> None:
    """Write a picture.

    Args:
        rows: Results.
        dense: That of the dense encoder, as a dotted line.
        key: "errors_capped" or "nats".
        path: A .png file.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    sizes_of: dict[tuple, set[int]] = {}
    for row in rows:
        sizes_of.setdefault(_panel(row), set()).add(row["size"])
    # A single size is no curve: where there are others, it stands in the table alone.
    most = max(map(len, sizes_of.values()), default=0)
    kept = [panel for panel, sizes in sizes_of.items() if len(sizes) > 1 or most == 1]
    panels = sorted(kept, key=lambda panel: (panel[0] != OBJECTIVE, *panel[:2], panel[2] is None)) or [("", 0, None)]
    figure = Figure(figsize=(4.6 * len(panels), 4.6), layout="constrained")
    title, scale = _NAMES[key]
    labels = sorted({row["label"] for row in rows}, key=lambda label: (label != "wrap", label))
    colours = {label: "black" if label == "wrap" else colormaps["tab10"](i % 10) for i, label in enumerate(labels)}
    handles = {}
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        if dense:
            handles["dense"] = axes.axhline(scale * dense[key], color="0.5", linestyle=":")
        mine = [row for row in rows if _panel(row) == panel]
        here = sorted({row["label"] for row in mine})
        for number, label in enumerate(here):
            points: dict[int, list[float]] = {}
            for row in mine:
                if row["label"] == label:
                    points.setdefault(row["size"], []).append(scale * row[key])
            sizes = sorted(points)
            means = [statistics.mean(points[size]) for size in sizes]
            spread = [statistics.stdev(points[size]) if len(points[size]) > 1 else 0.0 for size in sizes]
            # Side by side, so that bars do not hide each other.
            at = [100 - size + 0.7 * (number - (len(here) - 1) / 2) for size in sizes]
            handles[label] = axes.errorbar(at, means, spread, marker="o", capsize=3, color=colours[label])
        objective, steps, norm = panel
        axes.set_title(f"{steps} steps, objective {objective}" + ("" if norm is None else f", norm {norm:g}"))
        axes.set_xlabel("parameters left (%)")
        if rows:
            # The same for all panels, also for one with a single size.
            axes.set_xlim(94 - max(row["size"] for row in rows), 106 - min(row["size"] for row in rows))
        axes.set_ylabel(title)
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=6)
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=120))


def _panel(row: Row) -> tuple:
    return (row["objective"], row["steps"], row.get("max_norm"))
