"""Tables of values become settings classes: pydantic checks the values, its errors become ours. Its only importer."""

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING
from enum import Enum
from functools import cache
from pathlib import PurePath
from types import GenericAlias
from typing import Any, TypeVar, get_args

from l0prune.errors import ConfigError, nearest
from l0prune.support.fields import check_fields, fields_of, table_of, words_of

T = TypeVar("T")


def build(cls: type[T], values: Mapping[str, Any], *, where: str = "", defaults: T | None = None) -> T:
    """Make a settings dataclass from a mapping, checking names, types and ranges.

    Fields may be of any type that pydantic reads from JSON: numbers, strings, Literal, Enum, Path, lists, tuples,
    mappings, tables that are dataclasses themselves, and unions of these.

    Args:
        cls: A dataclass, whose fields may be dataclasses.
        values: Values by field name, tables as mappings. A table that leaves settings out keeps its defaults for them.
        where: Dotted name of the table, for messages.
        defaults: Where settings that `values` leaves out come from, instead of the defaults of `cls`.

    Raises:
        ConfigError: A key does not exist (the nearest name is given), is missing, has the wrong type or is out of
            range.
    """
    known = {field.name: field for field in fields_of(cls)}
    built = {} if defaults is None else {name: getattr(defaults, name) for name in known}
    for key, value in values.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in known:
            raise ConfigError("no such setting", where=path, hint=nearest(str(key), known))
        field, table = known[key], table_of(known[key].hint)
        if table is not None and isinstance(value, Mapping):
            default = field.default if isinstance(field.default, table) else None
            built[key] = build(table, value, where=path, defaults=default)
        elif table is not None and isinstance(value, table):
            built[key] = value
        else:
            built[key] = _checked(field.annotation, value, path)
    for name, field in known.items():
        if name not in built and field.default is MISSING:
            raise ConfigError("setting is missing", where=f"{where}.{name}" if where else name, expected=_a(field.hint))
    try:
        settings = cls(**built)
        check_fields(settings)
    except ConfigError as error:
        raise _placed(error, where) from error
    except ValueError as error:
        raise ConfigError("settings are refused", where=where or cls.__name__, got=error) from error
    for key in values:
        # Where a range has no upper end, infinity lies within it.
        value = built[key]
        if isinstance(value, float) and not math.isfinite(value):
            path = f"{where}.{key}" if where else key
            raise ConfigError("setting is not a finite number", where=path, got=value)
    return settings


def _placed(error: ConfigError, where: str) -> ConfigError:
    """The same error, with the place of its table where it names none."""
    if not where or error.where is not None:
        return error
    return type(error)(error.what, where=where, got=error.got, expected=error.expected, hint=error.hint)


@cache
def _adapter(hint: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    # In a tuple, so that the configuration reaches dataclasses: of them pydantic takes none beside their own.
    inside: Any = GenericAlias(tuple, (hint,))
    return TypeAdapter(inside, config=ConfigDict(strict=True, extra="forbid"))


def _checked(hint: Any, value: Any, path: str) -> Any:
    """A value as `hint` has it.

    pydantic's strict reading of JSON takes what a TOML file can hold and nothing else: no "3" for 3, but lists for
    tuples, strings for paths and for members of an Enum.
    """
    from pydantic import ValidationError
    from pydantic.errors import PydanticUserError

    try:
        adapter = _adapter(hint)
    except PydanticUserError as error:
        raise ConfigError("setting has a type that no file can hold", where=path, got=words_of(hint)) from error
    try:
        text = json.dumps([value], default=_plain)
    except (TypeError, ValueError) as error:
        raise ConfigError("setting has the wrong type", where=path, got=repr(value), expected=_a(hint)) from error
    try:
        (found,) = adapter.validate_json(text)
    except ValidationError as error:
        raise _told(error.errors(include_url=False), hint, value, path) from error
    except ConfigError as error:
        raise _placed(error, path) from error
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"no setting holds {type(value).__name__}")


_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "string_type": "a string",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": "a table",
    "mapping_type": "a table",
    "dataclass_type": "a table",
    "dataclass_exact_type": "a table",
    "model_type": "a table",
    "none_required": "nothing",
    "path_type": "a path",
}


def _told(errors: list[Any], hint: Any, value: Any, path: str) -> ConfigError:
    """What pydantic found, as one error of ours: the deepest place, and all that was expected there."""
    placed = [(_place(error, value), error) for error in errors]
    place, first = max(placed, key=lambda pair: len(pair[0]))
    here = [error for other, error in placed if other == place]
    kind, got = first["type"], repr(first["input"])
    where = path + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)
    said = " or ".join(dict.fromkeys(_EXPECTED.get(error["type"]) or _plainly(error["msg"]) for error in here))
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        table = _table_at(hint, place[:-1])
        names = [field.name for field in fields_of(table)] if table else ()
        return ConfigError("no such setting", where=where, hint=nearest(str(place[-1]), names) if names else None)
    if kind.startswith("missing"):
        return ConfigError("setting is missing", where=where)
    if kind in ("literal_error", "enum") and len(here) == 1:
        expected = first["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
        return ConfigError(f"unknown {where}", got=first["input"], expected=expected)
    if kind == "json_invalid":
        what, got, said = "setting is no text that a file can hold", ascii(value), None
    elif said == "a table":
        what, said = "setting is not a table", None
    elif len(here) == 1 and kind not in _EXPECTED:
        what = "setting out of range"
    else:
        what, said = "setting has the wrong type", said if place else _a(hint)
    return ConfigError(what, where=where, got=got, expected=said)


def _plainly(message: str) -> str:
    return message.removeprefix("Input should be ").removeprefix("Value error, ")


def _place(error: Mapping[str, Any], value: Any) -> tuple[int | str, ...]:
    """The steps from a value to what is wrong in it; pydantic's names of a union's members are left out."""
    place: list[int | str] = []
    for step in error["loc"][1:]:
        try:
            value = value[step]
        except (LookupError, TypeError):
            # Of what is missing the last step leads nowhere.
            if not (error["type"].startswith("missing") and step == error["loc"][-1]):
                continue
        place.append(step)
    return tuple(place)


def _table_at(hint: Any, place: tuple[int | str, ...]) -> type | None:
    """The settings class of a place inside a value of a type, where it can be told."""
    table = table_of(hint)
    if not place:
        return table
    if table is not None:
        inner = [field.hint for field in fields_of(table) if field.name == place[0]]
    else:
        inner = [item for item in get_args(hint) if item is not Ellipsis]
    return next(filter(None, (_table_at(item, place[1:]) for item in inner)), None)


def _a(hint: Any) -> str:
    """A type in words, with its article."""
    words = words_of(hint)
    return words if words.startswith(("true", "one of", "nothing", "anything")) else f"a {words}"
