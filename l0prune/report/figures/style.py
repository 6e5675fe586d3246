"""How figures are drawn: as PNG files and as SVG inside a page, whatever the names in them are."""

import io
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from l0prune.support import printable

_SAMPLE_LETTERS = 8
"""What a line's sample in a legend, and the space beside it, take."""
INK, MUTED, LINE, PALE = "#1d2329", "#59636e", "#e1e5ea", "#cfd9e6"
SERIES = ("#1f5fae", "#b9541a", "#2b7a4b", "#7a4cb3", "#ab2f4e", "#13747f")
"""Colours of a light page. A page's style sheet names each, and gives it another value for a dark page."""
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    LINE: "--line",
    PALE: "--pale",
    **{colour: f"--series-{number}" for number, colour in enumerate(SERIES, start=1)},
}
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


@contextmanager
def picture(path: Path, width: float, height: float) -> Iterator[Any]:
    """A matplotlib figure to draw on, which then becomes a file.

    Args:
        path: A PNG file to write.
        width: Inches.
        height: Inches.
    """
    import matplotlib
    from matplotlib.figure import Figure

    # A dollar in a name begins no formula; letters that the font lacks are boxes, and no reason to warn.
    with matplotlib.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        figure.savefig(path, dpi=150, format="png")


def legend_below(figure: Any, panels: Iterable[Any], *, columns: int, letters: int) -> None:
    """One legend for all panels, below them: within a panel it would cover some of what is drawn.

    Args:
        figure: The figure.
        panels: Those with named lines.
        columns: Of the legend, at most.
        letters: As many as a line of the legend has room for.
    """
    named = {name: handle for panel in panels for handle, name in zip(*panel.get_legend_handles_labels(), strict=True)}
    if named:
        fit = letters // (max(map(len, named)) + _SAMPLE_LETTERS)
        columns = max(1, min(columns, fit))
        figure.legend([*named.values()], [*named], loc="outside lower center", ncols=columns, fontsize=7)


def inline_svg(text: str, name: str, alt: str) -> str:
    """An `svg` element for HTML.

    Args:
        text: An SVG document that matplotlib wrote in the colours above.
        name: Unique on the page; makes the element's ids unique.
        alt: What the figure shows.
    """
    root = ElementTree.fromstring(text)
    used = set(re.findall(r"#([\w.-]+)(?=[)\"])", text))
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = dict(_attribute(*item, name) for item in element.items() if item[0] != "id" or item[1] in used)
        element.text, element.tail = (text and text.strip() for text in (element.text, element.tail))
    for style in [defs for defs in root.iter("defs") if defs.find("style") is not None]:
        root.remove(style)
    view = root.attrib["viewBox"]
    root.attrib = {"viewBox": view, "role": "img", "aria-label": alt}
    return ElementTree.tostring(root, encoding="unicode")


def _attribute(key: str, value: str, name: str) -> tuple[str, str]:
    key = key.rpartition("}")[2]
    if key == "id":
        return key, f"{name}-{value}"
    if key == "d":
        return key, re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.1f}", " ".join(value.split()))
    if key in ("clip-path", "href"):
        return key, value.replace("#", f"#{name}-")
    if key == "style":
        value = re.sub(r"font-family: [^;]*;? ?", "", value)
        return key, re.sub("#[0-9a-f]{6}", lambda colour: f"var({VARIABLES[colour[0]]})", value)
    return key, value


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
