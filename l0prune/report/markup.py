"""HTML put together safely: text is escaped, elements are not."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from l0prune.report.figures import Drawing
from l0prune.support import printable


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: str) -> Markup:
    """An element.

    Args:
        name: Of the element.
        children: Text, which is escaped, or `Markup`.
        attributes: By name; `class_` for class, `aria_label` for aria-label.
    """
    words = "".join(f' {key.rstrip("_").replace("_", "-")}="{_escaped(value)}"' for key, value in attributes.items())
    return Markup(f"<{name}{words}>{joined(children)}</{name}>")


def joined(children: Iterable[str]) -> Markup:
    """Pieces one after the other."""
    return Markup("".join(child if isinstance(child, Markup) else _escaped(child) for child in children))


def _escaped(text: str) -> str:
    return escape(printable(text, keep="\t\n\r"))


def table(caption: str, headings: Sequence[str], rows: Iterable[Sequence[str]], *, kind: str = "") -> Markup:
    """A table that scrolls by itself where it is wider than the page; the first cell of a row names it.

    Args:
        caption: What the table shows.
        headings: Of the columns.
        rows: Cells as text or `Markup`.
        kind: A class for the style sheet.
    """
    head = tag("tr", *(tag("th", heading, scope="col") for heading in headings))
    # On a phone each cell of a table of numbers stands in a line of its own, after its heading.
    labels = [{"data_label": heading} if kind == "numbers" else {} for heading in headings[1:]]
    body = [
        tag(
            "tr",
            tag("th", row[0], scope="row"),
            *(tag("td", cell, **label) for label, cell in zip(labels, row[1:], strict=True)),
        )
        for row in rows
    ]
    whole = tag("table", tag("caption", caption), tag("thead", head), tag("tbody", *body), class_=kind)
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading, what stands below it, and the figures among that."""

    title: str
    content: tuple[Markup, ...] = ()
    drawings: tuple[Drawing, ...] = ()
