"""The picture that a run gets where its task draws none: every group by name, with what it keeps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from l0prune import PruneGroup, RemovalPlan
from l0prune.report.figures.kept import draw_kept_units

GROUP = [{"tensor": "w", "dim": 0, "role": "consumes", "index": {"offset": 0, "width": 1}}]


def make_plan(names: list[str]) -> RemovalPlan:
    """Groups of one to four units, of which every fourth keeps all and the others lack one or more."""
    groups, kept = [], {}
    for number, name in enumerate(names):
        parts = {"name": name, "kind": "unit", "units": 1 + number % 4, "places": GROUP}
        more: dict[str, Any] = {"norms": [], "attributes": [], "alive_with": [], "bypass": None}
        groups.append(PruneGroup.from_json(parts | more))
        kept[name] = (0,)
    return RemovalPlan(groups=tuple(groups), kept=kept, shapes={})


def lengths(axes: Any) -> list[float]:
    return [bar.get_width() for bar in axes.patches]


def test_each_group_has_its_bar_and_its_numbers(
    make_network: Callable[..., tuple[nn.Module, list[PruneGroup]]], tmp_path: Path, drawn: list[Any]
) -> None:
    _, groups = make_network()
    plan = RemovalPlan(groups=tuple(groups), kept={"first": (0, 2, 3), "second": ()}, shapes={})
    draw_kept_units(plan, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = drawn[0].axes
    assert lengths(axes) == [1, 1, 0.75, 0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["first", "second"]
    (counts,) = axes.child_axes
    assert [text.get_text() for text in counts.get_yticklabels()] == ["3 of 4", "0 of 6"]
    assert axes.get_title() == "Kept units: 3 of 10"


@pytest.mark.parametrize(
    ("names", "named"),
    [(["only"], 1), (["$a_{$", "_b", "c" * 200, "d\x01\n"], 4), ([f"layers.{i}.hidden" for i in range(301)], 101)],
    ids=["one", "odd", "many"],
)
def test_names_of_any_kind_and_number(names: list[str], named: int, tmp_path: Path, drawn: list[Any]) -> None:
    draw_kept_units(make_plan(names), tmp_path / "picture.png")
    (axes,) = drawn[0].axes
    assert len(lengths(axes)) == 2 * len(names)
    assert len(axes.get_yticklabels()) == named
