"""Nested tables of settings: merged, read from TOML and written to it."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Any

from l0prune.errors import ConfigError
from l0prune.support.parsing import parse_toml, read_text


def to_mapping(settings: Any) -> dict[str, Any]:
    """The nested plain mapping of a settings dataclass."""
    return json.loads(json.dumps(asdict(settings), default=_plain))


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    return sorted(value) if isinstance(value, set | frozenset) else str(value)


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
        return parse_toml(read_text(path, "TOML"))
    except OSError as error:
        raise ConfigError("cannot read the configuration", where=path, got=error.strerror) from error
    except ValueError as error:
        raise ConfigError("not a TOML file", where=path, got=str(error)) from error


def write_toml(values: Mapping[str, Any], prefix: str = "") -> str:
    """TOML text of nested tables of numbers, strings, booleans and lists; None is left out."""
    quoted = {key: _toml_key(key) for key in values}
    plain = {key: value for key, value in values.items() if not isinstance(value, Mapping) and value is not None}
    lines = [f"{quoted[key]} = {_toml_value(value)}" for key, value in plain.items()]
    for key, value in values.items():
        if isinstance(value, Mapping):
            path = f"{prefix}{quoted[key]}"
            lines += ["", f"[{path}]", write_toml(value, f"{path}.").rstrip()]
    return "\n".join(lines).strip() + "\n"


def _toml_key(key: str) -> str:
    return key if re.fullmatch("[A-Za-z0-9_-]+", key) else _toml_value(key)


def _toml_value(value: Any) -> str:
    """JSON's notation, but for what TOML writes in another way: inf and nan, text beyond ASCII, the DEL character."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, Mapping):
        entries = (f"{_toml_key(key)} = {_toml_value(entry)}" for key, entry in value.items() if entry is not None)
        return f"{{{', '.join(entries)}}}"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
