"""Settings as KEY=VALUE: values as in TOML, bare strings, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l0prune import ConfigError
from l0prune.support import read_assignments, write_toml


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("joint.steps=100", {"joint": {"steps": 100}}),
        ("a.b.c = 1.5e-3", {"a": {"b": {"c": 1.5e-3}}}),
        ("compile=true", {"compile": True}),
        ("controller.kind=projected", {"controller": {"kind": "projected"}}),
        ("speech.teacher=runs/a b/teacher=1.pt", {"speech": {"teacher": "runs/a b/teacher=1.pt"}}),
        ("speech.teacher='3'", {"speech": {"teacher": "3"}}),
        ('speech.teacher=""', {"speech": {"teacher": ""}}),
        ("speech.units=['conv', \"head\"]", {"speech": {"units": ["conv", "head"]}}),
        ("gates.drop_rates={ffn=0.5}", {"gates": {"drop_rates": {"ffn": 0.5}}}),
        ('gates.drop_rates."x.y"=0.5', {"gates": {"drop_rates": {"x.y": 0.5}}}),
        ("name=2020-01-01", {"name": "2020-01-01"}),
        ("name=3 # three", {"name": "3 # three"}),
        ("name=1\nother=2", {"name": "1\nother=2"}),
        ("name=True", {"name": "True"}),
    ],
)
def test_one(text: str, expected: dict) -> None:
    assert read_assignments([text]) == expected


@given(
    st.lists(
        st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.booleans() | st.text(max_size=9), min_size=1
    )
)
def test_what_toml_holds_is_read_as_it_is_written(values: list) -> None:
    for value in (values, values[0]):
        text = write_toml({"x": value}).strip("\n").removeprefix("x = ")
        if "\n" not in text:
            assert read_assignments([f"a.x={text}"]) == {"a": {"x": value}}


def test_several() -> None:
    texts = ["joint.steps=1", "joint.warmup_steps=0", "seed=3"]
    assert read_assignments(texts) == {"joint": {"steps": 1, "warmup_steps": 0}, "seed": 3}
    assert read_assignments([]) == {}
    assert read_assignments(["joint={steps=1}", "joint.warmup_steps=0"]) == {"joint": {"steps": 1, "warmup_steps": 0}}


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["steps"], r"not a setting: --set \(got 'steps', expected KEY=VALUE"),
        (["=3"], "not a setting"),
        (["a..b=3"], "not a setting"),
        (["a b=3"], "not a setting"),
        (["a\nb=3"], "not a setting"),
        (["a="], r"setting has no value: --set \(got 'a='"),
        (["a=[1, 2"], r"not a TOML value: --set a \(got \[1, 2\)"),
        (["a=[conv, head]"], "not a TOML value: --set a"),
        (["a='x"], "not a TOML value: --set a"),
        (["a=1", "a=1"], r"setting is given twice: a \(got 'a=1' and 'a=1'"),
        (["a.b=1", "a=2"], "setting is given twice: a"),
        (["a=2", "a.b=1"], r"setting is given twice: a\.b"),
        (["a={b=1}", "a.b=1"], r"setting is given twice: a\.b"),
    ],
)
def test_refused(texts: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        read_assignments(texts)
    assert "\n" not in str(caught.value)
