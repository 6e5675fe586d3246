"""A benchmark as a picture: latency against length, and parameters against speed-up."""

from pathlib import Path
from typing import Any

from l0prune.benchmark import Measurement, Row
from l0prune.files import write_atomic


def draw_measurement(measurement: Measurement, path: Path) -> None:
    """Draw a benchmark of one batch size and number of threads, the first ones measured.

    Args:
        measurement: What to draw.
        path: A PNG file to write.
    """
    from matplotlib.figure import Figure

    first = measurement.rows[0]
    rows = [row for row in measurement.rows if (row.batch, row.threads) == (first.batch, first.threads)]
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    _latency(left, rows)
    _speedup(right, rows, measurement)
    threads = f"{first.threads} thread{'s' if first.threads > 1 else ''}"
    figure.suptitle(f"{measurement.processor}, {threads}, batch {first.batch}", fontsize=10)
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))


def _variant(row: Row) -> str:
    return f"{row.model}, {row.dtype}" + ("" if row.backend == "eager" else f", {row.backend}")


def _latency(axes: Any, rows: list[Row]) -> None:
    loads = list(dict.fromkeys(row.load for row in rows))
    for variant in dict.fromkeys(map(_variant, rows)):
        own = [row for row in rows if _variant(row) == variant]
        axes.plot([loads.index(row.load) for row in own], [row.latency_ms for row in own], marker="o", label=variant)
    axes.set_xticks(range(len(loads)), loads)
    axes.set_yscale("log")
    axes.set_ylabel("latency (ms)")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=7)


def _speedup(axes: Any, rows: list[Row], measurement: Measurement) -> None:
    load = rows[-1].load
    largest = max(facts["parameters"] or 0 for facts in measurement.models.values())
    for row in rows:
        size = measurement.models[row.model]["parameters"]
        if row.load == load and row.speedup and size:
            ratio = row.speedup
            error = [[ratio.median - ratio.low], [ratio.high - ratio.median]]
            axes.errorbar([size / 1e6], [ratio.median], yerr=error, marker="o", linestyle="", capsize=3)
            # To the side on which there is room.
            side = {"xytext": (4, 4)} if size < 0.6 * largest else {"xytext": (-4, 4), "ha": "right"}
            point = (size / 1e6, ratio.median)
            axes.annotate(_variant(row), point, fontsize=7, textcoords="offset points", **side)
    axes.set_xlabel("parameters (million)")
    axes.set_ylabel(f"times faster than {measurement.against}, {load}")
    axes.grid(alpha=0.3)
