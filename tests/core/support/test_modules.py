"""Dotted names of modules."""

from hypothesis import given
from hypothesis import strategies as st

from l0prune.support.modules import is_inside

names = st.lists(st.sampled_from(["a", "ab", "b", "0"]), min_size=1, max_size=4)


@given(names, names)
def test_a_name_is_inside_what_it_begins_with_part_by_part(name: list[str], module: list[str]) -> None:
    assert is_inside(".".join(name), ".".join(module)) == (name[: len(module)] == module)
    assert is_inside(".".join(name), "")
    assert not is_inside(".".join(name))
