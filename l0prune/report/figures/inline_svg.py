"""matplotlib's SVG made fit for a page: in the page's own light or dark colours and font, and as short as can be."""

import re
from xml.etree import ElementTree

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
