"""Figures: nothing of theirs clashes on a page, and both themes know and show their colours."""

import re
from dataclasses import replace
from importlib.resources import files
from xml.etree import ElementTree

import pytest

from l0prune.plugin import UnitKind
from l0prune.report.figures.bench import bench_figures
from l0prune.report.figures.evaluation import evaluation_figures
from l0prune.report.figures.kept import KeptUnits, kept_figures
from l0prune.report.figures.panels import Curve, curve_figure, line_look, scatter_figure, score_figure, size_figure
from l0prune.report.figures.style import VARIABLES, Drawing

ODD = "_$x$ <b> 模型"
BROKEN = "a\x01\ud800\n"
"""What neither XML nor UTF-8 can hold, and a line end."""


def curves(count: int) -> list[Curve]:
    return [Curve(name=f"{ODD} {i}", steps=(1.0, 2.0, 3.0), values=(0.5, 0.25 + i, 0.1)) for i in range(count)]


@pytest.fixture(scope="module")
def drawings() -> list[Drawing]:
    kept = [KeptUnits(group=f"{ODD} {i}", kind=ODD, units=4, kept=i % 5) for i in range(5)]
    models = ["a", f"runs/{ODD}"]
    scores = [{"model": model, "task": ODD, "metric": "accuracy", "mean": 0.5, "chance": 0.1} for model in models]
    layers = [{"model": model, "layer": layer, "measures": {"cka": 0.5}} for model in models for layer in (0, 1)]
    variant = {"dtype": "float32", "backend": "eager", "speedup": {"median": 2.0, "low": 1.5, "high": 2.5}}
    rows = [{**variant, "model": model, "load": f"{n} s", "latency_ms": n} for model in models for n in (1, 2)]
    bench = {"models": {model: {"parameters": 10} for model in models}, "rows": rows, "against": models[1]}
    return [
        curve_figure("lines", ODD, curves(7), cut_at=2.0),
        curve_figure("point", "one", [Curve(name="a", steps=(1.0,), values=(2.0,))]),
        *kept_figures(kept),
        *kept_figures(kept * 20, {ODD: UnitKind(title=ODD, axis=ODD)}, "many-"),
        size_figure("size", ODD, [(ODD, 3_000_000, 1), ("small", 1, 0), ("none", 0, 0)]),
        score_figure("score", ODD, [(ODD, 0.5, 0.1), ("b", 0.4, None)], from_zero=True),
        scatter_figure("scatter", ODD, [(ODD, 0.5, 0.1), ("b", 0.4, 0.2)], across=ODD, up="b"),
        *evaluation_figures(scores, layers),
        *bench_figures(bench),
    ]


def test_they_are_pictures_with_words(drawings: list[Drawing]) -> None:
    for drawing in drawings:
        assert drawing.png.startswith(b"\x89PNG")
        root = ElementTree.fromstring(drawing.svg)
        assert root.attrib["role"] == "img"
        assert root.attrib["aria-label"] == drawing.alt
        assert len(drawing.alt) > 20
        # A line, bar or marker beside the axes.
        assert len(list(root.iter("path"))) > 3
    texts = ["".join(ElementTree.fromstring(drawing.svg).itertext()) for drawing in drawings]
    assert len(texts) == 11
    assert all(ODD in texts[i] for i in range(11) if i != 1)


def test_lines_look_different() -> None:
    assert len({str(line_look(number)) for number in range(24)}) == 24


def test_long_names_leave_room() -> None:
    long = [replace(curve, name=f"{'folder/' * 30}{i}") for i, curve in enumerate(curves(3))]
    figures = curve_figure("long", "a", long), score_figure("long-2", "a", [(long[0].name, 0.5, 0.1)])
    for drawing, end in zip(figures, ("folder/2", "folder/0"), strict=True):
        assert long[0].name in drawing.alt
        assert end in "".join(ElementTree.fromstring(drawing.svg).itertext())


def test_what_cannot_be_shown_is_replaced() -> None:
    broken, shown = replace(curves(1)[0], name=BROKEN), "a\ufffd\ufffd\ufffd"
    for drawing in (curve_figure("a", BROKEN, [broken] * 2), score_figure("b", BROKEN, [(BROKEN, 0.5, None)])):
        assert shown in drawing.title
        assert shown in drawing.alt
        assert shown in "".join(ElementTree.fromstring(drawing.svg.encode()).itertext())


def test_ids_are_unique_and_are_there(drawings: list[Drawing]) -> None:
    page = "".join(drawing.svg for drawing in drawings)
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:url\(|href=")#([^)"]+)', page)) <= set(ids)


def test_every_colour_follows_the_theme(drawings: list[Drawing]) -> None:
    for drawing in drawings:
        painted = re.findall(r"(?:fill|stroke): ([^;\"]+)", drawing.svg)
        assert painted
        assert {colour for colour in painted if not colour.startswith("var(--")} <= {"none"}
        assert "://" not in drawing.svg


def luminance(colour: str) -> float:
    """WCAG 2.2's relative luminance."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(first: str, second: str) -> float:
    low, high = sorted([luminance(first), luminance(second)])
    return (high + 0.05) / (low + 0.05)


def test_both_themes_can_be_read() -> None:
    style = (files("l0prune.report") / "style.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]
    light, dark = (dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6})", block)) for block in blocks)
    assert {variable: colour for colour, variable in VARIABLES.items()}.items() <= light.items()
    assert light.keys() == dark.keys()
    for theme in (light, dark):
        for ground in ("--page", "--raised"):
            assert min(contrast(theme[name], theme[ground]) for name in ("--ink", "--muted")) >= 4.5
        assert min(contrast(theme[f"--series-{i}"], theme["--page"]) for i in range(1, 7)) >= 4.5
        assert contrast(theme["--warning-ink"], theme["--warning"]) >= 4.5
        # What is left stands on what was there.
        assert contrast(theme["--series-1"], theme["--pale"]) >= 3
