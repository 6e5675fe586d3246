"""Nested tables of settings: merged, checked against dataclasses, read from TOML and written to it."""

import json
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from l0prune.errors import ConfigError, nearest

T = TypeVar("T")


def build(cls: type[T], values: Mapping[str, Any], *, where: str = "") -> T:
    """Make a settings dataclass from a mapping, checking names and types.

    Args:
        cls: A dataclass, whose fields may be dataclasses.
        values: Values by field name, tables as mappings.
        where: Dotted name of the table, for messages.

    Raises:
        ConfigError: A key does not exist (the nearest name is given), is missing or has the wrong type.
    """
    hints = get_type_hints(cls)
    names = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    built: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{where}.{key}" if where else key
        if key not in names:
            raise ConfigError("no such setting", where=path, hint=nearest(key, names))
        built[key] = _convert(hints[key], value, path)
    try:
        settings = cls(**built)
    except TypeError as error:
        raise ConfigError("setting is missing", where=where or cls.__name__, got=str(error)) from error
    except ConfigError as error:
        if where and error.where is None:
            raise type(error)(
                error.what, where=where, got=error.got, expected=error.expected, hint=error.hint
            ) from error
        raise
    for key, value in built.items():
        # Where a range has no upper end, infinity lies within it.
        if isinstance(value, float) and not math.isfinite(value):
            path = f"{where}.{key}" if where else key
            raise ConfigError("setting is not a finite number", where=path, got=value)
    return settings


_TYPE_NAMES: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "a string",
    bool: "true or false",
    tuple: "a list",
    Mapping: "a table",
    type(None): "nothing",
}


def _convert(hint: Any, value: Any, path: str) -> Any:
    if is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError("setting is not a table", where=path, got=repr(value))
        return build(hint, value, where=path)  # type: ignore[arg-type]
    choices = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    for choice in choices:
        origin, item = get_origin(choice) or choice, get_args(choice)
        if origin is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if origin is tuple and isinstance(value, list | tuple):
            return tuple(_convert(item[0], element, path) for element in value)
        if origin is Mapping and isinstance(value, Mapping):
            return {key: _convert(item[1], element, f"{path}.{key}") for key, element in value.items()}
        if origin in (int, str, bool) and type(value) is origin:
            return value
        if choice is Any or (choice is type(None) and value is None):
            return value
    expected = " or ".join(_TYPE_NAMES.get(get_origin(choice) or choice, str(choice)) for choice in choices)
    raise ConfigError("setting has the wrong type", where=path, got=repr(value), expected=expected)


def to_mapping(settings: Any) -> dict[str, Any]:
    """The nested plain mapping of a settings dataclass."""
    return json.loads(json.dumps(asdict(settings), default=str))


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested tables; later layers win."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
            merged[key] = merge(merged[key], value) if both else value
    return merged


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: It cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError("cannot read the configuration", where=path, got=error.strerror) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("not a TOML file", where=path, got=str(error)) from error


def write_toml(values: Mapping[str, Any], prefix: str = "") -> str:
    """TOML text of nested tables of numbers, strings, booleans and lists; None is left out."""
    quoted = {key: key if re.fullmatch("[A-Za-z0-9_-]+", key) else _toml_value(key) for key in values}
    plain = {key: value for key, value in values.items() if not isinstance(value, Mapping) and value is not None}
    lines = [f"{quoted[key]} = {_toml_value(value)}" for key, value in plain.items()]
    for key, value in values.items():
        if isinstance(value, Mapping):
            path = f"{prefix}{quoted[key]}"
            lines += ["", f"[{path}]", write_toml(value, f"{path}.").rstrip()]
    return "\n".join(lines).strip() + "\n"


def _toml_value(value: Any) -> str:
    """JSON's notation, but for what TOML writes in another way: inf and nan, text beyond ASCII, the DEL character."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
