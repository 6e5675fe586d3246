"""The forms that JSON from files must have."""

import sys
from collections.abc import Mapping
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

from l0prune.errors import RunError

NUMBER = (int, float)
NUMBER_OR_NOTHING = (int, float, None)


def rows_of(
    rows: Any, path: Path, form: Mapping[str, Any], more: Mapping[str, Any] | None = None
) -> tuple[Mapping[str, Any], ...]:
    """A list of objects, each of a form.

    Args:
        rows: From JSON.
        path: Its file, for messages.
        form: As `checked` takes it.
        more: As `checked` takes it.

    Raises:
        RunError: It is no list, or names the first row that is not of the form.
    """
    if not isinstance(rows, list):
        raise RunError("damaged file", where=path, got=type(rows).__name__, expected="a list of rows")
    return tuple(checked(row, form, f"{path}, row {number}", more) for number, row in enumerate(rows, start=1))


def checked(
    value: Any, form: Mapping[str, Any], where: object, more: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """An object, if it is of a form.

    Args:
        value: From JSON or TOML.
        form: Schemas, as `conforms` takes them, of entries that must be there.
        where: The file, for messages.
        more: Schemas of entries that may be there.

    Raises:
        RunError: Names the first entry that is missing, of another form, or a number that cannot be shown.
    """
    if not isinstance(value, dict):
        raise RunError("damaged file", where=where, got=type(value).__name__, expected="an object")
    for key, schema in {**form, **(more or {})}.items():
        missing = key not in value
        if key in form if missing else not (conforms(value[key], schema) and _finite(value[key], schema)):
            raise RunError("damaged file", where=f"{where}: {key}", got="nothing" if missing else shortened(value[key]))
    return value


def _finite(value: Any, schema: Any) -> bool:
    """Whether all numbers of which a schema speaks have a place on an axis: not nan, not too large for a float."""
    if schema in (dict, list) or isinstance(value, str | None):
        return True
    if isinstance(value, Mapping | list):
        return all(_finite(item, None) for item in (value.values() if isinstance(value, Mapping) else value))
    return abs(value) <= sys.float_info.max


def conforms(value: object, schema: Any) -> bool:  # noqa: PLR0911 - one for each form
    """Whether a JSON value has the form that a schema gives.

    Args:
        value: From JSON.
        schema: A type; a literal, None or text; a tuple of alternatives; a list of the form of its elements; a
            dictionary of the forms of its entries, where the key `str` stands for any names.
    """
    match schema:
        case type():
            return type(value) is schema
        case tuple():
            return any(conforms(value, choice) for choice in schema)
        case [form]:
            return isinstance(value, list) and all(conforms(element, form) for element in value)
        case dict() if str in schema:
            return isinstance(value, dict) and all(conforms(entry, schema[str]) for entry in value.values())
        case dict():
            if not isinstance(value, dict) or value.keys() != schema.keys():
                return False
            return all(conforms(value[key], form) for key, form in schema.items())
        case _:
            return value == schema
