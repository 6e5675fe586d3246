"""JSON and TOML from files that may be damaged or hostile: read within bounds, else a `ValueError`."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_MOST_BYTES = {"JSON": 2**28, "TOML": 2**22}
"""Of a file. A plan of a large network takes 10 MB, settings that list 10,000 files take 1 MB."""
_MOST_LEVELS = 100
"""Tables within tables, lists within lists, and parts of a dotted key."""
_QUOTED = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*+(?:""")?' + r"|'''(?:[^']|'(?!''))*+(?:''')?"
    r"""|"(?:[^"\\\n]|\\.)*+"?|'[^'\n]*+'?|\#[^\n]*+""",
    re.DOTALL,
)
"""TOML's strings and comments, whether or not they end."""
_LONG_KEY = re.compile(rf"(?<![\w-])(?:[\w-]++[ \t]*+\.[ \t]*+){{{_MOST_LEVELS}}}")

_LONG_NUMBER = re.compile("[0-9]{19}")


def read_text(path: Path, kind: str) -> str:
    """The text of a file, read no further than its kind can reach.

    Args:
        path: The file, UTF-8.
        kind: "JSON" or "TOML".

    Raises:
        OSError: It cannot be read.
        ValueError: It is not UTF-8, or larger than any such file.
    """
    most = _MOST_BYTES[kind]
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"more than {most >> 20} MB")
    return content.decode("utf-8")


def parse_json(text: str) -> Any:
    """The value of a JSON text; whole numbers beyond 64 bits become floating-point numbers.

    Raises:
        ValueError: It is not JSON, or nested too deeply.
    """
    try:
        # Looking at each number takes ten times as long.
        value = json.loads(text, parse_int=_whole if _LONG_NUMBER.search(text) else None)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    _check_levels(value)
    return value


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a TOML text.

    Raises:
        ValueError: It is not TOML, nested too deeply, or holds a whole number beyond 64 bits.
    """
    # tomllib takes minutes over a key of 20,000 parts.
    if _LONG_KEY.search(_QUOTED.sub("s", text)):
        raise ValueError(f"a key of more than {_MOST_LEVELS} parts")
    try:
        tables = tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    _check_levels(tables)
    if any(type(value) is int and not _fits(value) for value in _leaves(tables)):
        raise ValueError("a whole number beyond 64 bits")
    return tables


def _whole(text: str) -> int | float:
    number = int(text) if len(text) <= 20 else 2**64
    return number if _fits(number) else float(text)


def _fits(number: int) -> bool:
    return -(2**63) <= number < 2**63


def _inner(value: Any) -> Any:
    """What a container holds."""
    return value.values() if isinstance(value, dict) else value


def _check_levels(value: Any) -> None:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(_MOST_LEVELS):
        level = [inner for container in level for inner in _inner(container) if type(inner) in (dict, list)]
        if not level:
            return
    raise ValueError("nested too deeply")


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for inner in _inner(value):
            yield from _leaves(inner)
    else:
        yield value
