"""What matplotlib draws, as a PNG file and as SVG to stand in a page."""

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from l0prune.report.figures.inline_svg import INK, LINE, MUTED, inline_svg
from l0prune.support.text import printable

MARK = "l0prune report"
"""In every PNG file: what has it was drawn for a report."""
_WIDTH = 4.0
"""Inches. Small, so that text stays readable when a figure is as wide as a phone."""
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "axes.labelsize": 9.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 1.6,
    "axes.formatter.useoffset": False,
}


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A finished figure."""

    name: str
    """Unique on its page; also the PNG's."""
    title: str
    alt: str
    """What it shows, for those who do not see it."""
    svg: str = field(repr=False)
    png: bytes = field(repr=False)


def draw(name: str, title: str, alt: str, paint: Callable[[Any], None], *, height: float = 2.6) -> Drawing:
    """Make a figure.

    Args:
        name: Unique on the page, of letters, digits and hyphens.
        title: Above the figure on the page; not drawn.
        alt: What the figure shows.
        paint: Draws on matplotlib's axes.
        height: Inches.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # A browser finds letters that matplotlib's font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        paint(figure.subplots())
        vector, raster = io.StringIO(), io.BytesIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(vector, format="svg", transparent=True, metadata=nothing)
        figure.savefig(raster, format="png", dpi=150, metadata={"Software": MARK})
    title, alt = printable(title), printable(alt)
    svg = inline_svg(vector.getvalue(), name, alt)
    return Drawing(name=name, title=title, alt=alt, svg=svg, png=raster.getvalue())
