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
    _latency(left, rows, measurement)
    _speedup(right, rows, measurement)
    threads = f"{first.threads} thread{'s' if first.threads > 1 else ''}"
    figure.suptitle(f"{measurement.processor}, {threads}, batch {first.batch}", fontsize=10)
    write_atomic(path, lambda temporary: figure.savefig(temporary, dpi=150, format="png"))


def _variant(row: Row, measurement: Measurement) -> str:
    name = _short(row.model, measurement)
    return f"{name}, {row.dtype}" + ("" if row.backend == "eager" else f", {row.backend}")


def _short(model: str, measurement: Measurement) -> str:
    """A path's last part, where no other model has the same."""
    last = [Path(name).name for name in measurement.models]
    name = Path(model).name
    return name if last.count(name) == 1 else model


def _latency(axes: Any, rows: list[Row], measurement: Measurement) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    loads = list(dict.fromkeys(row.load for row in rows))
    for variant in dict.fromkeys(_variant(row, measurement) for row in rows):
        own = [row for row in rows if _variant(row, measurement) == variant]
        axes.plot([loads.index(row.load) for row in own], [row.latency_ms for row in own], marker="o", label=variant)
    axes.set_xticks(range(len(loads)), loads)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
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
            axes.annotate(_variant(row, measurement), point, fontsize=7, textcoords="offset points", **side)
    if largest:
        axes.set_xlim(0, 1.05 * largest / 1e6)
    axes.set_xlabel("parameters (million)")
    axes.set_ylabel(f"times faster than {_short(str(measurement.against), measurement)}, {load}")
    axes.grid(alpha=0.3)
