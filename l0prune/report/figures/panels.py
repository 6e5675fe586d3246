"""The figures of a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from l0prune.report.figures.style import MUTED, PALE, SERIES, Drawing, drawing
from l0prune.support import figure_label, figure_labels, plain, quantity, score

_DASHES = ("-", (0, (4, 1.5)), (0, (1.5, 1)), (0, (6, 1, 1.5, 1)))


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One quantity over the optimizer steps of both stages."""

    name: str
    steps: tuple[float, ...]
    values: tuple[float, ...]
    """Finite, one a step."""


def curve_figure(name: str, title: str, curves: Sequence[Curve], *, cut_at: float | None = None) -> Drawing:
    """Lines over the optimizer steps.

    Args:
        name: Unique on the page.
        title: Above the figure.
        curves: One line each.
        cut_at: A step to mark as the cut.
    """
    ends = [f"{curve.name} from {plain(curve.values[0])} to {plain(curve.values[-1])}" for curve in curves]
    last = max(curve.steps[-1] for curve in curves)
    alt = f"{title} over {last:,.0f} steps: {'; '.join(ends)}."

    labels = figure_labels([curve.name for curve in curves])

    def paint(axes: Any) -> None:
        for number, (label, curve) in enumerate(zip(labels, curves, strict=True)):
            # A single point is no line.
            marker = "o" if len(curve.steps) == 1 else ""
            axes.plot(curve.steps, curve.values, marker=marker, label=label, **line_look(number))
        if cut_at is not None and last > cut_at:
            axes.axvline(cut_at, color=MUTED, linewidth=0.8)
            place = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
            axes.annotate("cut", (cut_at, 1), (3, -8), color=MUTED, fontsize=9, **place)
        axes.set_xlabel("optimizer step")
        axes.locator_params(axis="x", nbins=6)
        axes.xaxis.set_major_formatter("{x:,.0f}")

    return drawing(name, title, alt, paint, legend=len(curves) > 1)


def line_look(number: int) -> dict[str, Any]:
    """Colour and dashes of a line: neighbours differ in both, and 24 lines have 24 looks."""
    dashes = _DASHES[(number + number // 12) % len(_DASHES)]
    return {"color": SERIES[number % len(SERIES)], "linestyle": dashes}


def size_figure(name: str, title: str, rows: Sequence[tuple[str, int, int]]) -> Drawing:
    """Bars before and after; what is below a hundredth of the whole is taken together.

    Args:
        name: Unique on the page.
        title: Above the figure.
        rows: Label, size before and size after of each part.
    """
    total = sum(before for _, before, _ in rows)
    shown = [row for row in rows if row[1] >= total / 100]
    rest = [row for row in rows if row not in shown]
    if any(before for _, before, _ in rest):
        shown.append(("others", sum(before for _, before, _ in rest), sum(after for _, _, after in rest)))
    alt = f"{title}, before and after: {'; '.join(f'{n} {quantity(b)}, {quantity(a)}' for n, b, a in shown)}."
    largest = max(before for _, before, _ in shown)
    scale, word = (1e9, "billion") if largest >= 1e9 else (1e6, "million") if largest >= 1e6 else (1e3, "thousand")

    def paint(axes: Any) -> None:
        places = range(len(shown))
        axes.barh(places, [before / scale for _, before, _ in shown], color=PALE, height=0.74, label="before")
        axes.barh(places, [after / scale for _, _, after in shown], color=SERIES[0], height=0.4, label="after")
        axes.set_yticks(places, [figure_label(label) for label, _, _ in shown])
        axes.invert_yaxis()
        axes.set_xlabel(word)
        axes.locator_params(axis="x", nbins=5)
        _sideways(axes)

    return drawing(name, title, alt, paint, legend=True, height=0.8 + 0.3 * len(shown))


def score_figure(
    name: str,
    title: str,
    rows: Sequence[tuple[str, float, float | None]],
    *,
    from_zero: bool = False,
    chance: float | None = None,
) -> Drawing:
    """Points, with their deviations where they have one, one row each.

    Args:
        name: Unique on the page.
        title: Above the figure.
        rows: Label, mean and deviation.
        from_zero: Whether the axis begins at 0.
        chance: What a guess would score; a line.
    """
    beside = "" if chance is None else f" Chance is {chance:.4g}."
    alt = f"{title}: {'; '.join(f'{label} {score(mean, spread)}' for label, mean, spread in rows)}.{beside}"

    def paint(axes: Any) -> None:
        places = range(len(rows))
        means, spreads = [mean for _, mean, _ in rows], [spread or 0.0 for _, _, spread in rows]
        axes.errorbar(means, places, xerr=spreads, fmt="o", color=SERIES[0], capsize=3, markersize=5)
        if chance is not None:
            axes.axvline(chance, color=MUTED, linestyle=":", linewidth=1, label="chance")
        axes.set_yticks(places, figure_labels([label for label, _, _ in rows]))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        if from_zero:
            axes.set_xlim(left=0)
        axes.locator_params(axis="x", nbins=5)
        _sideways(axes)

    return drawing(name, title, alt, paint, legend=chance is not None, height=0.6 + 0.3 * len(rows))


def layer_figure(name: str, title: str, lines: Mapping[str, Sequence[tuple[int, float]]]) -> Drawing:
    """Lines over the layers of networks.

    Args:
        name: Unique on the page.
        title: Above the figure.
        lines: Layer and value, by network.
    """
    ends = [f"{label} from {plain(points[0][1])} to {plain(points[-1][1])}" for label, points in lines.items()]
    alt = f"{title}, by layer: {'; '.join(ends)}."

    labels = figure_labels(list(lines))

    def paint(axes: Any) -> None:
        for number, (label, points) in enumerate(zip(labels, lines.values(), strict=True)):
            layers, values = zip(*points, strict=True)
            axes.plot(layers, values, marker="o", markersize=4, label=label, **line_look(number))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("layer")

    return drawing(name, title, alt, paint, legend=True)


def elastic_figure(name: str, title: str, points: Sequence[tuple[float, float]], *, across: str) -> Drawing:
    """A line over the sizes of an elastic run.

    Args:
        name: Unique on the page.
        title: Above the figure.
        points: Share of the size that is left, and the loss; the smallest first.
        across: What the size counts.
    """
    alt = f"{title}: {'; '.join(f'{plain(loss)} at {left:.1%}' for left, loss in points)} of the {across}."

    def paint(axes: Any) -> None:
        shares, losses = zip(*points, strict=True)
        axes.plot([100 * share for share in shares], losses, marker="o", markersize=4, color=SERIES[0])
        axes.set_xlabel(f"{figure_label(across)} left, %")
        axes.set_ylabel("held-out loss")

    return drawing(name, title, alt, paint)


def _sideways(axes: Any) -> None:
    """For rows in place of columns."""
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.tick_params(axis="y", length=0)


def scatter_figure(
    name: str, title: str, points: Sequence[tuple[str, float, float]], *, across: str, up: str
) -> Drawing:
    """Named points.

    Args:
        name: Unique on the page.
        title: Above the figure.
        points: Label and both coordinates.
        across: What the horizontal axis counts.
        up: What the vertical one counts.
    """
    alt = f"{title}: {'; '.join(f'{label} at {x:.4g} {across}, {y:.4g} {up}' for label, x, y in points)}."

    labels = figure_labels([label for label, _, _ in points])

    def paint(axes: Any) -> None:
        for number, (label, (_, x, y)) in enumerate(zip(labels, points, strict=True)):
            axes.plot([x], [y], marker="o", linestyle="", label=label, color=SERIES[number % len(SERIES)])
        axes.margins(0.15)
        axes.set_xlabel(across)
        axes.set_ylabel(up)

    return drawing(name, title, alt, paint, legend=True)
