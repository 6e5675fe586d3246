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

    panels = sorted({(row["objective"], row["steps"]) for row in rows}, key=lambda x: (x[0] != OBJECTIVE, x)) or [
        ("", 0)
    ]
    figure = Figure(figsize=(4.6 * len(panels), 4.6), layout="constrained")
    title, scale = _NAMES[key]
    labels = sorted({row["label"] for row in rows}, key=lambda label: (label != "wrap", label))
    colours = {label: "black" if label == "wrap" else colormaps["tab10"](i % 10) for i, label in enumerate(labels)}
    handles = {}
    for axes, (objective, steps) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        if dense:
            handles["dense"] = axes.axhline(scale * dense[key], color="0.5", linestyle=":")
        mine = [row for row in rows if (row["objective"], row["steps"]) == (objective, steps)]
        for number, label in enumerate(sorted({row["label"] for row in mine})):
            points: dict[int, list[float]] = {}
            for row in mine:
                if row["label"] == label:
                    points.setdefault(row["size"], []).append(scale * row[key])
            sizes = sorted(points)
            means = [statistics.mean(points[size]) for size in sizes]
            spread = [statistics.stdev(points[size]) if len(points[size]) > 1 else 0.0 for size in sizes]
            # Side by side, so that bars do not hide each other.
            at = [100 - size + 0.7 * (number - len(labels) / 2) for size in sizes]
            handles[label] = axes.errorbar(at, means, spread, marker="o", capsize=3, color=colours[label])
        axes.set_title(f"{steps} steps, objective {objective}")
        axes.set_xlabel("parameters left (%)")
        if rows:
            # The same for all panels, also for one with a single size.
            axes.set_xlim(94 - max(row["size"] for row in rows), 106 - min(row["size"] for row in rows))
        axes.set_ylabel(title)
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=6)
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=120))
