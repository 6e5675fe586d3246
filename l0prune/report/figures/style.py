"""How figures are drawn: as PNG files and as SVG inside a page, whatever the names in them are."""

import io
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from textwrap import fill
from typing import Any
from xml.etree import ElementTree

from l0prune.support import figure_label, printable, write_atomic

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
_TITLE, _LEGEND_LINE = 0.25, 0.15
"""Inches that a panel's title and a line of a sheet's legend take."""
_LETTERS_PER_INCH, _LEGEND_LETTERS = 17, 56
"""That a legend has room for: of a sheet, and of a figure of its own."""
_TITLE_LETTERS = 32
"""Of a line: beside the names of rows a panel is narrow."""
_DPI = 150
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
    """A figure: one painter, whose axes stand on a page, in a PNG file or in a sheet of several."""

    name: str
    """Unique on its page; also the PNG's."""
    title: str
    alt: str
    """What it shows, for those who do not see it."""
    paint: Callable[[Any], None] = field(repr=False)
    """Draws on matplotlib's axes; neither title nor legend."""
    legend: bool = False
    """Whether the names of what is drawn are shown."""
    height: float = 2.6
    """Inches."""

    @cached_property
    def svg(self) -> str:
        """An `svg` element for HTML."""
        return inline_svg(self._document(), self.name, self.alt)

    @cached_property
    def svg_file(self) -> bytes:
        """The content of an SVG file, in the colours of a light page."""
        return self._document(Title=self.alt).encode("utf-8")

    @cached_property
    def png(self) -> bytes:
        """The content of a PNG file."""
        content = io.BytesIO()
        with _canvas(self.name, _WIDTH, self.height) as figure:
            self._alone(figure)
            figure.savefig(content, format="png", dpi=_DPI, metadata={"Software": MARK})
        return content.getvalue()

    def _document(self, **metadata: str) -> str:
        """An SVG document without a background."""
        text = io.StringIO()
        with _canvas(self.name, _WIDTH, self.height) as figure:
            self._alone(figure)
            nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
            figure.savefig(text, format="svg", transparent=True, metadata={**nothing, **metadata}, dpi=_DPI)
        return text.getvalue()

    def _alone(self, figure: Any) -> None:
        axes = figure.subplots()
        self.paint(axes)
        if self.legend:
            _legend_above(axes)


def drawing(
    name: str, title: str, alt: str, paint: Callable[[Any], None], *, legend: bool = False, height: float = 2.6
) -> Drawing:
    """A figure whose words can be shown, whatever the names in them are.

    Args:
        name: Unique on the page, of letters, digits and hyphens.
        title: Above the figure.
        alt: What the figure shows.
        paint: Draws on matplotlib's axes.
        legend: Whether the names of what is drawn are shown.
        height: Inches.
    """
    return Drawing(name=name, title=printable(title), alt=printable(alt), paint=paint, legend=legend, height=height)


def write_sheet(path: Path, drawings: Sequence[Drawing], *, columns: int, heading: str = "") -> None:
    """Several figures as the panels of one PNG file, each below its title, with one legend for all.

    Args:
        path: The file; one that is there is replaced whole.
        drawings: In the order of reading.
        columns: Panels beside each other, at most.
        heading: Above all.
    """
    columns = min(columns, len(drawings))
    heights = [max(one.height for one in drawings[i : i + columns]) for i in range(0, len(drawings), columns)]
    width, height = _WIDTH * columns, sum(heights) + _TITLE * len(heights)
    with _canvas("sheet", width, height) as figure:
        panels = list(figure.subplots(len(heights), columns, squeeze=False, height_ratios=heights).flat)
        for axes, one in zip(panels, drawings, strict=False):
            one.paint(axes)
            axes.set_title(fill(figure_label(one.title, 2 * _TITLE_LETTERS), _TITLE_LETTERS))
        for unused in panels[len(drawings) :]:
            unused.set_visible(False)
        named = [axes for axes, one in zip(panels, drawings, strict=False) if one.legend]
        lines = legend_below(figure, named, columns=3, letters=round(_LETTERS_PER_INCH * width))
        figure.set_size_inches(width, height + _LEGEND_LINE * lines)
        if heading:
            figure.suptitle(printable(heading), fontsize=10)
        write_atomic(path, lambda temporary: figure.savefig(temporary, format="png", dpi=_DPI))


@contextmanager
def _canvas(name: str, width: float, height: float) -> Iterator[Any]:
    """A matplotlib figure of our style; equal pictures have equal bytes."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # A browser finds letters that matplotlib's font lacks; in a PNG file they are boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield Figure(figsize=(width, height), layout="constrained")


def _legend_above(axes: Any) -> None:
    """Above the axes, where no line can be; in as many columns as the longest name allows."""
    longest = max(map(len, axes.get_legend_handles_labels()[1]), default=0)
    columns = max(1, _LEGEND_LETTERS // (longest + 5))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.2, columnspacing=1.2)


def legend_below(figure: Any, panels: Iterable[Any], *, columns: int, letters: int) -> int:
    """One legend for all panels, below them: within a panel it would cover some of what is drawn.

    Args:
        figure: The figure.
        panels: Those with named lines.
        columns: Of the legend, at most.
        letters: As many as a line of the legend has room for.

    Returns:
        The number of its lines.
    """
    named: dict[str, Any] = {}
    for panel in panels:
        for handle, name in zip(*panel.get_legend_handles_labels(), strict=True):
            named.setdefault(name, handle)
    if not named:
        return 0
    fit = letters // (max(map(len, named)) + _SAMPLE_LETTERS)
    columns = max(1, min(columns, fit))
    figure.legend([*named.values()], [*named], loc="outside lower center", ncols=columns, fontsize=7)
    return -(-len(named) // columns)
