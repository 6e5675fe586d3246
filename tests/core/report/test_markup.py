"""HTML is what was meant: text comes back as it went in, and opens no element."""

from html.parser import HTMLParser
from importlib.resources import files

from hypothesis import given
from hypothesis import strategies as st

from l0prune.report.markup import Markup, joined, table, tag
from l0prune.support.text import printable

# HTML itself turns carriage returns into other characters.
TEXT = st.text(st.characters(exclude_characters="\r")).map(lambda text: printable(text, keep="\t\n"))


class Reader(HTMLParser):
    """Elements, attributes and text of a document."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@given(text=TEXT, value=TEXT)
def test_text_and_attributes_come_back(text: str, value: str) -> None:
    read = Reader(tag("p", text, aria_label=value))
    assert read.elements == [("p", {"aria-label": value})]
    assert read.text == text


@given(cells=st.lists(TEXT, min_size=2, max_size=2))
def test_cells_of_a_table_come_back(cells: list[str]) -> None:
    read = Reader(table("", ["", ""], [cells]))
    assert read.text == "".join(cells)
    assert [name for name, _ in read.elements].count("td") == 1


def test_cells_of_a_table_say_their_column() -> None:
    """On a phone they stand below each other."""
    read = Reader(table("Sizes", ["part", "before", "after"], [["encoder", "12", "3"]], kind="numbers"))
    labels = [attributes["data-label"] for name, attributes in read.elements if name == "td"]
    assert labels == ["before", "after"]
    style = (files("l0prune.report") / "style.css").read_text(encoding="utf-8")
    phone = style.partition("@media (max-width: 40rem)")[2]
    assert ".numbers td::before { content: attr(data-label);" in phone


def test_what_cannot_be_shown_is_replaced() -> None:
    text = tag("p", "a\x01b\ud800\n", title="\x00")
    assert text == '<p title="\ufffd">a\ufffdb\ufffd\n</p>'


def test_markup_is_not_escaped_again() -> None:
    inner = tag("b", "a < b", class_="x")
    assert tag("p", "1 & ", inner) == '<p>1 &amp; <b class="x">a &lt; b</b></p>'
    assert isinstance(joined([inner, "<"]), Markup)
