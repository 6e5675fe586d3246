"""Names as figures show them: short, and never the same for two models."""

from hypothesis import given
from hypothesis import strategies as st

from l0prune.support.text import figure_label, figure_labels, shortest_endings

NAMES = st.lists(st.text("ab/:.", min_size=1, max_size=7), unique=True, max_size=6)


@given(names=NAMES)
def test_two_names_stay_two(names: list[str]) -> None:
    short = shortest_endings(names)
    assert list(short) == names
    assert len(set(short.values())) == len(names)


def test_the_shortest_ending_that_is_no_others() -> None:
    assert shortest_endings(["runs/a/run", "/x/runs/b/run/", "filterbanks", "some/other"]) == {
        "runs/a/run": "a/run",
        "/x/runs/b/run/": "b/run",
        "filterbanks": "filterbanks",
        "some/other": "other",
    }
    assert shortest_endings(["run", "x/run"]) == {"run": "run", "x/run": "x/run"}


def test_what_stands_before_a_colon_is_kept() -> None:
    names = ["x/run", "random:/x/run", "random:/y/run"]
    assert shortest_endings(names[:2]) == {"x/run": "run", "random:/x/run": "random:run"}
    assert [*shortest_endings(names).values()] == ["run", "random:x/run", "random:y/run"]


def test_a_long_name_keeps_both_its_ends() -> None:
    label = figure_label(f"random:{'folder/' * 20}seed-2")
    assert len(label) < 30
    assert label.startswith("random:")
    assert label.endswith("/seed-2")
    assert figure_label("_short") == " _short"


def test_long_names_that_are_cut_alike_are_numbered() -> None:
    names = [f"{'a' * 9}{letter * 30}{'z' * 18}" for letter in "bcd"]
    label = f"{'a' * 9}…{'z' * 18}"
    assert figure_labels([*names, "e"]) == [label, f"{label} (2)", f"{label} (3)", "e"]
