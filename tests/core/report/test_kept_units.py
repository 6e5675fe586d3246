"""The picture of a pruned architecture: what every group keeps, whatever the network and its names."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from l0prune import PruneGroup, RemovalPlan
from l0prune.plugin import UnitKind
from l0prune.report.figures.kept import draw_kept_units, kept_figures, kept_units

GROUP = [{"tensor": "w", "dim": 0, "role": "consumes", "index": {"offset": 0, "width": 1}}]


def make_plan(names: list[str]) -> RemovalPlan:
    """Groups of one to four units, of which every fourth keeps all and the others lack one or more."""
    groups, kept = [], {}
    for number, name in enumerate(names):
        parts = {"name": name, "kind": "unit", "units": 1 + number % 4, "places": GROUP}
        more: dict[str, Any] = {"norms": [], "attributes": [], "alive_with": [], "bypass": None}
        groups.append(PruneGroup.from_json(parts | more, {"w": [4]}))
        kept[name] = (0,)
    return RemovalPlan(groups=tuple(groups), kept=kept, shapes={})


def heights(axes: Any) -> list[float]:
    return [bar.get_height() for bar in axes.patches]


def names(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.get_xticklabels()]


def test_each_group_has_its_bar_and_its_number(
    make_network: Callable[..., tuple[nn.Module, list[PruneGroup]]], tmp_path: Path, drawn: list[Any]
) -> None:
    _, groups = make_network()
    plan = RemovalPlan(groups=tuple(groups), kept={"first": (0, 2, 3), "second": ()}, shapes={})
    draw_kept_units(plan, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = drawn[0].axes
    assert heights(axes) == [4, 6, 3, 0]
    assert names(axes) == ["first", "second"]
    assert [text.get_text() for text in axes.texts] == ["3", "0"]
    assert axes.get_title(loc="left") == "unit: 3 of 10 kept"


@pytest.mark.parametrize(
    ("groups", "named"),
    [(["only"], 1), (["$a_{$", "_b", "c" * 200, "d\x01\n"], 4), ([f"layers.{i}.hidden" for i in range(301)], 12)],
    ids=["one", "odd", "many"],
)
def test_names_of_any_kind_and_number(groups: list[str], named: int, tmp_path: Path, drawn: list[Any]) -> None:
    draw_kept_units(make_plan(groups), tmp_path / "picture.png")
    (axes,) = drawn[0].axes
    assert len(heights(axes)) == 2 * len(groups)
    assert len(names(axes)) == named


WORDS = UnitKind(title="Hidden units", axis="layer")


def test_whoever_names_a_kind_has_its_groups_numbered_as_they_are_named(tmp_path: Path, drawn: list[Any]) -> None:
    """Where a block is absent, others keep their numbers."""
    plan = make_plan([f"layers.{i}.hidden2" for i in (0, 2, 5)])
    draw_kept_units(plan, tmp_path / "picture.png", {"absent": WORDS, "unit": WORDS})
    (axes,) = drawn[0].axes
    assert names(axes) == ["1", "3", "6"]
    assert [bar.get_x() + bar.get_width() / 2 for bar in axes.patches] == pytest.approx([1, 3, 6] * 2)
    assert (axes.get_xlabel(), axes.get_title(loc="left")) == ("layer", "Hidden units: 3 of 6 kept")


@pytest.mark.parametrize("groups", [["a", "b"], ["layers.1.a", "layers.1.b"], ["layers.1", "b"]])
def test_groups_without_numbers_of_their_own_are_counted(groups: list[str], tmp_path: Path, drawn: list[Any]) -> None:
    draw_kept_units(make_plan(groups), tmp_path / "picture.png", {"unit": WORDS})
    assert names(drawn[0].axes[0]) == ["1", "2"]


def test_stacks_that_number_their_blocks_alike_have_panels_of_their_own(tmp_path: Path, drawn: list[Any]) -> None:
    places = ("encoder.layers.{}.self_attn", "decoder.layers.{}.self_attn", "decoder.layers.{}.encoder_attn")
    plan = make_plan([place.format(block) for block in (0, 2) for place in places])
    draw_kept_units(plan, tmp_path / "picture.png", {"unit": WORDS})
    panels = drawn[0].axes
    stacks = ["encoder self_attn", "decoder self_attn", "decoder encoder_attn"]
    assert [axes.get_title(loc="left").replace("\n", " ") for axes in panels] == [
        f"Hidden units, {stack}: 2 of {units} kept" for stack, units in zip(stacks, (1 + 4, 2 + 1, 3 + 2), strict=True)
    ]
    assert [names(axes) for axes in panels] == [["1", "3"]] * 3
    # Whoever names no kinds has one panel with every group's name.
    assert len(list(kept_figures(kept_units(plan)))) == 1


def test_no_axis_has_parts_of_units(tmp_path: Path, drawn: list[Any]) -> None:
    draw_kept_units(make_plan(["only"]), tmp_path / "picture.png")
    assert all(tick == round(tick) for tick in drawn[0].axes[0].get_yticks())


def test_a_page_and_a_file_have_the_same_painter(tmp_path: Path, drawn: list[Any]) -> None:
    """Each panel of the file is a figure of the page, in the order of whoever named the kinds."""
    plan = make_plan(["a", "b"])
    first, second = plan.groups
    plan = RemovalPlan(groups=(first, replace(second, kind="other")), kept=plan.kept, shapes={})
    kinds = {"other": WORDS, "unit": replace(WORDS, title="Others")}
    draw_kept_units(plan, tmp_path / "picture.png", kinds)
    figures = [*kept_figures(kept_units(plan), kinds)]
    assert [figure.title for figure in figures] == [axes.get_title(loc="left") for axes in drawn[0].axes]
    assert [figure.title for figure in figures] == ["Hidden units: 1 of 2 kept", "Others: 1 of 1 kept"]
    for figure, panel in zip(figures, drawn[0].axes, strict=True):
        assert figure.svg
        assert heights(drawn[-1].axes[0]) == heights(panel)
