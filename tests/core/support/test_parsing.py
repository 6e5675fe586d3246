"""JSON and TOML that would take minutes, gigabytes or Python's stack are refused at once."""

import math
from pathlib import Path

import pytest

from l0prune import ConfigError, RunError
from l0prune.support import parse_json, read_assignments, read_json, read_toml
from l0prune.support.parsing import parse_toml

DEEP = 100_000


@pytest.mark.parametrize("text", ["[" * DEEP, "[" * 101 + "]" * 101, '{"a":' * DEEP, "", "{", '{"a": 1}}'])
def test_json_that_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(RunError, match=r"not a JSON file: .*file\.json"):
        read_json(path)


def test_json_within_bounds() -> None:
    assert parse_json("[" * 100 + "]" * 100)
    assert parse_json('{"text": "[[[", "least": -9223372036854775808}') == {"text": "[[[", "least": -(2**63)}


LARGE = [(str(2**63), 2.0**63), ("1" * 30, float("1" * 30)), ("9" * 5000, math.inf)]


@pytest.mark.parametrize(("text", "number"), LARGE)
def test_whole_numbers_beyond_64_bits_are_no_whole_numbers(text: str, number: float) -> None:
    (found,) = parse_json(f"[{text}]")
    assert isinstance(found, float)
    assert found == number


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a." * 20_000 + "a = 1", "a key of more than 100 parts"),
        ("[" + '"a" . ' * 20_000 + "a]", "a key of more than 100 parts"),
        ("a = {" + "b." * 20_000 + "b = 1}", "a key of more than 100 parts"),
        ("a = " + "[" * DEEP, "nested too deeply"),
        ("a = " + "[" * 200 + "]" * 200, "nested too deeply"),
        ("a = " + "{a = " * DEEP, "nested too deeply"),
        (f"a = [[{10**30}]]", "a whole number beyond 64 bits"),
        ("a = " + "1" * 5000, "digits"),
        ("a = '" + "x" * 2**22 + "'", "more than 4 MB"),
    ],
)
def test_toml_that_is_refused(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "file.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"not a TOML file: .*file\.toml .*{reason}"):
        read_toml(path)


def test_dots_in_toml_that_are_no_key() -> None:
    text = f'''# {"a." * 200}
    one = "{"a." * 200}\\"{"b." * 200}"
    two = """{"a." * 200}
    \\"""{"a." * 200}""""
    three = '{"a." * 200}'
    four = [{"0.5, " * 200}]
    '''
    assert set(parse_toml(text)) == {"one", "two", "three", "four"}


@pytest.mark.parametrize("text", ["a." * 20_000 + "a=1", "a=" + "[" * DEEP, "a=" + "1" * 5000 + "]"])
def test_assignments(text: str) -> None:
    try:
        read_assignments([text])
    except ConfigError as error:
        assert len(str(error)) < 3000  # noqa: PT017 - one that is taken is text


def test_a_device_without_end(tmp_path: Path) -> None:
    (tmp_path / "config.toml").symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match="more than 4 MB"):
        read_toml(tmp_path / "config.toml")
