"""A benchmark as pictures: latency by load, and how many times faster each model is for its size."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from l0prune.measuring import Measurement
from l0prune.report.figures.panels import score_figure
from l0prune.report.figures.style import SERIES, Drawing, drawing, write_sheet
from l0prune.support import counted, figure_label, figure_labels, shortest_endings

_MARKERS = {"float32": "o", "bfloat16": "s", "int8": "^"}
_LINES = {"eager": "-", "compile": "-.", "onnxruntime": "--", "openvino": ":"}
_FILLS = {"eager": "full", "compile": "left", "onnxruntime": "none", "openvino": "bottom"}
"""In which a point differs by backend, where there is no line."""
_APART = 0.012
"""Between the variants of a model, which has one size, as a share of the largest."""

_LETTERS = 40
"""Of a variant's name in the legend."""

_Row = Mapping[str, Any]


def bench_figures(bench: Mapping[str, Any], prefix: str = "") -> Iterator[Drawing]:
    """Latency by load; and times faster against parameters, where something is compared.

    Args:
        bench: A measurement's JSON object; of several batch sizes or numbers of threads the first ones are drawn.
        prefix: Makes the names of the figures unique on a page.
    """
    first = bench["rows"][0]
    rows = [row for row in bench["rows"] if all(row.get(key) == first.get(key) for key in ("batch", "threads"))]
    loads = list(dict.fromkeys(row["load"] for row in rows))
    short = shortest_endings([*dict.fromkeys(row["model"] for row in bench["rows"])])
    title = ", ".join(["Latency in ms", *(loads if len(loads) == 1 else ()), *_setting(first)])
    if len(loads) == 1:
        points = [(_variant(row, short), row["latency_ms"], None) for row in rows]
        yield score_figure(f"{prefix}latency", title, points, from_zero=True)
    else:
        yield _latency(f"{prefix}latency", title, rows, loads, short)
    sizes = {model: facts.get("parameters") for model, facts in bench["models"].items()}
    compared = [row for row in rows if row["load"] == loads[-1] and row.get("speedup") and sizes.get(row["model"])]
    if compared:
        than = str(bench.get("against") or "")
        against = f" than {figure_label(short.get(than, than))}" if than else ""
        yield _speedup(f"{prefix}speedup", f"Times faster{against}, {loads[-1]}", compared, sizes, short)


def _setting(row: _Row) -> list[str]:
    batch, threads = row.get("batch"), row.get("threads")
    return [*([f"batch {batch}"] if batch else []), *([counted(threads, "thread")] if threads else [])]


def _variant(row: _Row, short: Mapping[str, str]) -> str:
    words = [short[row["model"]], row["dtype"], *([row["backend"]] if row["backend"] != "eager" else [])]
    return ", ".join(words)


def _look(row: _Row, short: Mapping[str, str]) -> dict[str, Any]:
    """A colour for each model, a marker for each dtype, a kind of line and of point for each backend."""
    return {
        "color": SERIES[list(short).index(row["model"]) % len(SERIES)],
        "marker": _MARKERS.get(row["dtype"], "o"),
        "fillstyle": _FILLS.get(row["backend"], "full"),
        "linestyle": _LINES.get(row["backend"], "-"),
    }


def _latency(name: str, title: str, rows: Sequence[_Row], loads: Sequence[str], short: Mapping[str, str]) -> Drawing:
    by_variant: dict[str, list[_Row]] = {}
    for row in rows:
        by_variant.setdefault(_variant(row, short), []).append(row)
    ends = (f"{v} from {own[0]['latency_ms']:.4g} to {own[-1]['latency_ms']:.4g}" for v, own in by_variant.items())
    alt = f"{title}, from {loads[0]} to {loads[-1]}: {'; '.join(ends)}."

    def paint(axes: Any) -> None:
        from matplotlib.ticker import LogLocator, NullFormatter

        for label, own in zip(figure_labels([*by_variant], _LETTERS), by_variant.values(), strict=True):
            places = [loads.index(row["load"]) for row in own]
            axes.plot(places, [row["latency_ms"] for row in own], label=label, **_look(own[0], short))
        axes.set_xticks(range(len(loads)), loads)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylabel("latency (ms)")

    return drawing(name, title, alt, paint, legend=True, height=3.0)


def _speedup(
    name: str, title: str, rows: Sequence[_Row], sizes: Mapping[str, int], short: Mapping[str, str]
) -> Drawing:
    variants = [_variant(row, short) for row in rows]
    found = (f"{variant} {row['speedup']['median']:.2f}" for variant, row in zip(variants, rows, strict=True))
    alt = f"{title}: {'; '.join(found)}."

    def paint(axes: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        largest = max(sizes[row["model"]] for row in rows)
        for label, row in zip(figure_labels(variants, _LETTERS), rows, strict=True):
            own = [other for other in rows if other["model"] == row["model"]]
            aside = _APART * largest * (own.index(row) - (len(own) - 1) / 2)
            ratio, place = row["speedup"], (sizes[row["model"]] + aside) / 1e6
            error = [[ratio["median"] - ratio["low"]], [ratio["high"] - ratio["median"]]]
            look = _look(row, short) | {"linestyle": ""}
            axes.errorbar([place], [ratio["median"]], error, capsize=2, label=label, **look)
        axes.set_xlim(0, 1.1 * largest / 1e6)
        # Long numbers near the edge would stand beyond it.
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("million parameters")
        axes.set_ylabel("times faster")

    return drawing(name, title, alt, paint, legend=True, height=3.0)


def draw_measurement(measurement: Measurement, path: Path) -> None:
    """Draw a benchmark of one batch size and number of threads, the first ones measured.

    Args:
        measurement: What to draw.
        path: A PNG file to write.
    """
    write_sheet(path, [*bench_figures(measurement.to_json())], columns=2, heading=measurement.processor)
