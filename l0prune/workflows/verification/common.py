"""What checks of saved runs and of exports share."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from l0prune.errors import RunError
from l0prune.plugin import Opener, get_plugin

Checks = Iterator[tuple[str, Callable[[], str]]]
"""Names and checks, each of which says what was found or raises."""


class Unknown(Exception):
    """There is nothing to check by; says why."""


def agree(what: str, values: Mapping[str, Any], where: Path) -> None:
    """Raise a `RunError` unless all values are the same."""
    (first, expected), *others = values.items()
    for name, value in others:
        if value != expected:
            raise RunError(f"{what} differ", where=where, got=f"{name} {value}", expected=f"{first} {expected}")


def opener(plugin: str | None) -> Opener:
    """The plugin of a name, where it opens files."""
    if plugin is None:
        raise Unknown("no plugin is named that could open it")
    chosen = get_plugin(plugin)
    if not isinstance(chosen, Opener):
        raise Unknown(f"the plugin {plugin!r} opens no files")
    return chosen
