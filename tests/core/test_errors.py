"""Errors that a user can cause are one line, whatever names and values hold."""

from hypothesis import given
from hypothesis import strategies as st

from l0prune import DataError

ANYTHING = st.text(st.characters(exclude_categories=()), max_size=40)


@given(where=ANYTHING, got=ANYTHING, expected=ANYTHING)
def test_a_message_is_one_line_without_control_characters(where: str, got: str, expected: str) -> None:
    said = str(DataError("not so", where=where, got=got, expected=expected, hint="try\nagain"))
    assert said.isprintable()
    assert said.endswith("try\\nagain")


def test_what_prints_stays_as_it_is() -> None:
    assert str(DataError("not so", where="straße/语音.wav", got=3)) == "not so: straße/语音.wav (got 3)"
