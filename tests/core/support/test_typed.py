"""Tables of values become settings classes: types, ranges, tables within tables, and what is refused."""

import math
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from l0prune import ConfigError
from l0prune.support import Setting, build, check_fields, fields_of, to_mapping, words_of, write_toml


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, kw_only=True)
class Inner:
    width: Annotated[int, Setting(ge=1)] = 4
    """How wide."""
    rate: float = 0.5

    def __post_init__(self) -> None:
        if self.width == 13:
            raise ConfigError("width brings bad luck", got=self.width)


@dataclass(frozen=True, kw_only=True)
class Options:
    kind: Literal["a", "b"] = "a"
    """Which.

    More of it."""
    colour: Colour = Colour.RED
    folder: Path = Path("here")
    counts: list[int] = field(default_factory=list)
    pair: tuple[int, float] = (1, 2.0)
    names: tuple[str, ...] = ()
    either: int | tuple[int, ...] = 0
    maybe: Inner | None = None
    inner: Inner = field(default_factory=lambda: Inner(width=7, rate=0.25))
    layers: tuple[Inner, ...] = ()
    by_name: Mapping[str, Inner] = field(default_factory=dict)
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    even: Annotated[int, Field(multiple_of=2)] = 2


def test_everything_survives_a_toml_file() -> None:
    made = Options(
        kind="b",
        colour=Colour.BLUE,
        folder=Path("there/it is"),
        counts=[1, 2],
        pair=(3, 4.5),
        names=("é", '"'),
        either=(1, 2),
        maybe=Inner(width=2),
        layers=(Inner(width=1), Inner(rate=0.125)),
        by_name={"x y": Inner(width=3)},
        share=0.5,
    )
    assert build(Options, tomllib.loads(write_toml(to_mapping(made)))) == made
    assert build(Options, {}) == Options()
    assert build(Options, {"maybe": None, "colour": Colour.BLUE, "folder": Path("x"), "inner": Inner()}) == Options(
        colour=Colour.BLUE, folder=Path("x"), inner=Inner()
    )


def test_a_partial_table_keeps_its_defaults() -> None:
    assert build(Options, {"inner": {"width": 2}}).inner == Inner(width=2, rate=0.25)
    # An optional table that is nothing by default has those of its class.
    assert build(Options, {"maybe": {"width": 2}}).maybe == Inner(width=2, rate=0.5)
    assert build(Options, {"inner": {}}).inner == Options().inner


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"kind": "c"}, "unknown kind (got c, expected a, b)"),
        ({"colour": "rde"}, "unknown colour (got rde, expected red, blue)"),
        ({"folder": 3}, "setting has the wrong type: folder (got 3, expected a path)"),
        ({"counts": [1, "x"]}, "setting has the wrong type: counts[1] (got 'x', expected a whole number)"),
        ({"counts": 1}, "setting has the wrong type: counts (got 1, expected a list of whole numbers)"),
        ({"counts": [True]}, "setting has the wrong type: counts[0] (got True, expected a whole number)"),
        ({"pair": [1]}, "setting is missing: pair[1]"),
        ({"names": "ab"}, "setting has the wrong type: names (got 'ab', expected a list of strings)"),
        ({"either": ["x"]}, "setting has the wrong type: either[0] (got 'x', expected a whole number)"),
        (
            {"either": "x"},
            "setting has the wrong type: either (got 'x', expected a whole number or list of whole numbers)",
        ),
        ({"maybe": 3}, "setting is not a table: maybe (got 3)"),
        ({"maybe": {"widht": 3}}, "no such setting: maybe.widht; did you mean 'width'?"),
        ({"inner": {"width": 0}}, "width out of range: inner (got 0, expected 1 or more)"),
        ({"inner": {"width": 13}}, "width brings bad luck: inner (got 13)"),
        ({"inner": {"rate": math.nan}}, "setting is not a finite number: inner.rate (got nan)"),
        ({"layers": [{"width": 1}, {"wdith": 1}]}, "no such setting: layers[1].wdith; did you mean 'width'?"),
        ({"layers": [{"width": 13}]}, "width brings bad luck: layers (got 13)"),
        ({"layers": [3]}, "setting is not a table: layers[0] (got 3)"),
        ({"by_name": {"x": {"rate": "y"}}}, "setting has the wrong type: by_name.x.rate (got 'y', expected a number)"),
        ({"share": 0.0}, "setting out of range: share (got 0.0, expected greater than 0)"),
        ({"share": "all"}, "setting has the wrong type: share (got 'all', expected a number)"),
        ({"even": 3}, "setting out of range: even (got 3, expected a multiple of 2)"),
        ({"evne": 4}, "no such setting: evne; did you mean 'even'?"),
        ({"names": ["\ud800"]}, "setting is no text that a file can hold: names (got ['\\ud800'])"),
    ],
)
def test_what_is_refused_is_one_line_with_its_place(values: dict, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(Options, values)
    assert str(caught.value) == line


def test_a_value_of_no_file_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"wrong type: names \(got <object .*expected a list of string"):
        build(Options, {"names": object()})


def test_a_type_of_no_file_is_refused() -> None:
    @dataclass
    class Odd:
        what: range = range(3)

    with pytest.raises(ConfigError, match=r"a type that no file can hold: odd\.what \(got range\)"):
        build(Odd, {"what": 3}, where="odd")


def test_what_must_be_given_is_named() -> None:
    @dataclass
    class Given:
        width: int
        name: str = ""

    with pytest.raises(ConfigError, match=r"setting is missing: toy\.width \(expected a whole number\)"):
        build(Given, {"name": "x"}, where="toy")


def test_errors_of_a_class_itself_are_one_line() -> None:
    @dataclass
    class Checked:
        width: int = 0

        def __post_init__(self) -> None:
            if self.width > 3:
                raise ValueError("width is more than three")

    with pytest.raises(ConfigError, match=r"settings are refused: toy \(got width is more than three\)"):
        build(Checked, {"width": 4}, where="toy")


def test_ranges_hold_where_an_object_is_made_by_hand_and_checked() -> None:
    with pytest.raises(ConfigError, match=r"inner\.width out of range \(got 0, expected 1 or more\)"):
        check_fields(Inner(width=0), "inner")
    with pytest.raises(ConfigError, match=r"unknown kind \(got z, expected a, b\)"):
        check_fields(Options(kind="z"))  # type: ignore[arg-type]


def test_fields_are_described() -> None:
    found = {field.name: field for field in fields_of(Options)}
    assert (found["kind"].text, words_of(found["kind"].hint)) == ("Which.", 'one of "a", "b"')
    assert words_of(found["colour"].hint) == 'one of "red", "blue"'
    assert words_of(found["maybe"].hint) == "table or nothing"
    assert words_of(found["by_name"].hint) == "table of tables"
    assert found["share"].range == "above 0 and 1 or less"
    (width, _) = fields_of(Inner)
    assert (width.text, width.range, width.default) == ("How wide.", "1 or more", 4)


def test_importing_the_package_loads_no_pydantic() -> None:
    code = (
        "import sys, l0prune; from l0prune.config import GateConfig; import l0prune.plugin; GateConfig(drop_rate=0.5);"
        "l0prune.GateConfig; print({'pydantic', 'torch'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
