"""Settings in the form KEY=VALUE, as a command line gives them."""

import datetime
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from l0prune.errors import ConfigError
from l0prune.support.parsing import parse_toml
from l0prune.support.tables import merge

_EXPECTED = "KEY=VALUE, for example joint.steps=100"


def read_assignments(texts: Iterable[str], *, where: str = "--set") -> dict[str, Any]:
    """Nested tables from texts such as `joint.steps=100`.

    Args:
        texts: Each a dotted key as in TOML, "=", and a TOML value. Text that is no TOML value is a string; quotes,
            brackets and braces begin one.
        where: Where they came from, for messages.

    Raises:
        ConfigError: One is no KEY=VALUE, or two set the same.
    """
    merged: dict[str, Any] = {}
    given: dict[tuple[str, ...], str] = {}
    for text in texts:
        table = _assignment(text, where)
        for path in _paths(table):
            for other, before in given.items():
                shared = min(len(path), len(other))
                if path[:shared] == other[:shared]:
                    both = f"{before!r} and {text!r}"
                    raise ConfigError("setting is given twice", where=".".join(path), got=both, expected="one of them")
            given[path] = text
        merged = merge(merged, table)
    return merged


def read_value(text: str, *, where: object) -> Any:
    """The value that a text stands for: a TOML value, or the text itself where it is none.

    Raises:
        ConfigError: It begins like a list, a table or quoted text, and is none.
    """
    text = text.strip()
    try:
        found = parse_toml(f"value = {text}") if "\n" not in text else {}
    except ValueError as error:
        if text.startswith(("[", "{", '"', "'")):
            raise ConfigError("not a TOML value", where=where, got=text, hint=_why(error)) from error
        return text
    value = found.get("value")
    # "3 # three" would lose its end, and dates are of no setting.
    return text if found.keys() != {"value"} or ("#" in text and not _quoted(text)) or _is_date(value) else value


def _assignment(text: str, where: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip() or "\n" in key:
        raise ConfigError("not a setting", where=where, got=repr(text), expected=_EXPECTED)
    if not value.strip():
        hint = "two quotes stand for an empty string"
        raise ConfigError("setting has no value", where=where, got=repr(text), expected=_EXPECTED, hint=hint)
    try:
        table = parse_toml(f"{key} = 0")
    except ValueError as error:
        raise ConfigError("not a setting", where=where, got=repr(text), expected=_EXPECTED) from error
    return _filled(table, read_value(value, where=f"{where} {key.strip()}"))


def _filled(table: Mapping[str, Any], value: Any) -> dict[str, Any]:
    ((key, inner),) = table.items()
    return {key: _filled(inner, value) if isinstance(inner, Mapping) else value}


def _paths(table: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in table.items():
        path = (*prefix, key)
        if isinstance(value, Mapping) and value:
            yield from _paths(value, path)
        else:
            yield path


def _quoted(text: str) -> bool:
    return text.startswith(("[", "{", '"', "'"))


def _is_date(value: Any) -> bool:
    return isinstance(value, datetime.date | datetime.time)


def _why(error: ValueError) -> str:
    return " ".join(str(error).split())
