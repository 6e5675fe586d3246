"""A benchmark as a picture: latency against length, and parameters against speed-up."""

from math import ceil
from pathlib import Path
from typing import Any

from l0prune.measuring import Measurement, Row
from l0prune.report.figures.style import legend_below, picture
from l0prune.support import counted, figure_names, write_atomic

_MARKERS = {"float32": "o", "bfloat16": "s", "int8": "^"}
_LINES = {"eager": "-", "compile": "-.", "onnxruntime": "--", "openvino": ":"}
_FILLS = {"eager": "full", "compile": "left", "onnxruntime": "none", "openvino": "bottom"}
"""In which a point differs by backend, where there is no line."""
_COLUMNS = 3
"""Of the legend."""
_LETTERS = 180
"""That a line of the legend has room for."""
_APART = 0.012
"""Between the variants of a model, which has one size, as a share of the largest."""


def draw_measurement(measurement: Measurement, path: Path) -> None:
    """Draw a benchmark of one batch size and number of threads, the first ones measured.

    Args:
        measurement: What to draw.
        path: A PNG file to write.
    """
    write_atomic(path, lambda temporary: _draw(measurement, temporary))


def _draw(measurement: Measurement, path: Path) -> None:
    first = measurement.rows[0]
    rows = [row for row in measurement.rows if (row.batch, row.threads) == (first.batch, first.threads)]
    names = figure_names([*measurement.models])
    variants = len({_variant(row, names) for row in rows})
    with picture(path, 10, 4.2 + 0.18 * ceil(variants / _COLUMNS)) as figure:
        left, right = figure.subplots(1, 2)
        _latency(left, rows, measurement, names)
        _speedup(right, rows, measurement, names)
        legend_below(figure, [left], columns=_COLUMNS, letters=_LETTERS)
        threads = counted(first.threads, "thread")
        figure.suptitle(f"{measurement.processor}, {threads}, batch {first.batch}", fontsize=10)


def _variant(row: Row, names: dict[str, str]) -> str:
    return f"{names[row.model]}, {row.dtype}" + ("" if row.backend == "eager" else f", {row.backend}")


def _style(row: Row, measurement: Measurement) -> dict[str, Any]:
    """A colour for each model, a marker for each dtype, a kind of line and of point for each backend."""
    colour = f"C{list(measurement.models).index(row.model) % 10}"
    fill = _FILLS[row.backend]
    return {"color": colour, "marker": _MARKERS[row.dtype], "fillstyle": fill, "linestyle": _LINES[row.backend]}


def _latency(axes: Any, rows: list[Row], measurement: Measurement, names: dict[str, str]) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    loads = list(dict.fromkeys(row.load for row in rows))
    for variant in dict.fromkeys(_variant(row, names) for row in rows):
        own = [row for row in rows if _variant(row, names) == variant]
        places = [loads.index(row.load) for row in own]
        axes.plot(places, [row.latency_ms for row in own], label=variant, **_style(own[0], measurement))
    axes.set_xticks(range(len(loads)), loads)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("latency (ms)")
    axes.grid(alpha=0.3, which="both")


def _speedup(axes: Any, rows: list[Row], measurement: Measurement, names: dict[str, str]) -> None:
    load = rows[-1].load
    largest = max(facts["parameters"] or 0 for facts in measurement.models.values())
    drawn = [r for r in rows if r.load == load and r.speedup and measurement.models[r.model]["parameters"]]
    for row in drawn:
        own = [other for other in drawn if other.model == row.model]
        aside = _APART * largest * (own.index(row) - (len(own) - 1) / 2)
        place, ratio = (measurement.models[row.model]["parameters"] + aside) / 1e6, row.speedup
        assert ratio is not None
        error = [[ratio.median - ratio.low], [ratio.high - ratio.median]]
        axes.errorbar([place], [ratio.median], error, capsize=2, **_style(row, measurement) | {"linestyle": ""})
    if largest:
        axes.set_xlim(0, 1.1 * largest / 1e6)
    axes.set_xlabel("parameters (million), variants of a model side by side")
    against = f" than {names[measurement.against]}" if measurement.against else ""
    axes.set_ylabel(f"times faster{against}, {load}", fontsize=9)
    axes.grid(alpha=0.3)
