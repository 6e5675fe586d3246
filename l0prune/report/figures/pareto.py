"""Runs as points in two measures, with the line of those that no other run dominates."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from l0prune.report.figures.style import INK, MUTED, SERIES, Drawing, drawing
from l0prune.support import figure_label, figure_labels, score

_LETTERS = 24
"""Of a point's name, which stands beside it."""
_SCALES = ((1e9, "billion "), (1e6, "million "), (1e4, "thousand "))
"""From which number on an axis counts in a word; the word for 1e4 counts in thousands."""


@dataclass(frozen=True, kw_only=True)
class ParetoPoint:
    """One run."""

    label: str
    x: float
    y: float
    deviation: float | None
    """Of y, where it is known."""
    dominated: bool


def pareto_figure(
    name: str, title: str, points: Sequence[ParetoPoint], *, across: str, up: str, more_across: bool
) -> Drawing:
    """Points with their names: filled on the front, hollow where they are dominated.

    The line of the front is a staircase: between two runs nothing was reached, so that none is drawn there.

    Args:
        name: Unique on the page.
        title: Above the figure.
        points: One or more.
        across: What the horizontal axis counts.
        up: What the vertical one counts.
        more_across: Whether more of what the horizontal axis counts is better.
    """
    words = (
        f"{one.label} at {one.x:.6g}, {score(one.y, one.deviation)}{' (dominated)' if one.dominated else ''}"
        for one in points
    )
    alt = f"{title}, {across} and {up}: {'; '.join(words)}."
    front = sorted((one for one in points if not one.dominated), key=lambda one: one.x)
    labels = figure_labels([one.label for one in points], _LETTERS)
    (scale, word), (rise, rise_word) = (_scale([getattr(one, key) for one in points]) for key in ("x", "y"))

    def paint(axes: Any) -> None:
        steps = "steps-pre" if more_across else "steps-post"
        x, y = [one.x / scale for one in front], [one.y / rise for one in front]
        axes.plot(x, y, drawstyle=steps, color=SERIES[0], linewidth=1.2)
        for dominated, look, legend in (
            (False, {"color": SERIES[0]}, "not dominated"),
            (True, {"color": MUTED, "markerfacecolor": "none"}, "dominated"),
        ):
            own = [one for one in points if one.dominated is dominated]
            if own:
                spreads = [(one.deviation or 0.0) / rise for one in own]
                x, y = [one.x / scale for one in own], [one.y / rise for one in own]
                # A bar of no length would still have caps.
                bars = spreads if any(spreads) else None
                axes.errorbar(x, y, bars, fmt="o", capsize=2, elinewidth=1, label=legend, **look)
        for label, one in zip(labels, points, strict=True):
            place = {"textcoords": "offset points", "xytext": (5, 4), "fontsize": 8}
            axes.annotate(label, (one.x / scale, one.y / rise), color=MUTED if one.dominated else INK, **place)
        axes.margins(0.12)
        axes.set_xlabel(f"{word}{figure_label(across)}")
        axes.set_ylabel(f"{rise_word}{figure_label(up)}")
        axes.grid(visible=True, axis="both")

    return drawing(name, title, alt, paint, legend=any(one.dominated for one in points), height=3.0)


def _scale(values: Sequence[float]) -> tuple[float, str]:
    """What an axis is divided by, and the word for it."""
    largest = max(map(abs, values))
    scale, word = next(((scale, word) for scale, word in _SCALES if largest >= scale), (1.0, ""))
    return (1e3 if scale == _SCALES[-1][0] else scale), word
