"""Packages whose names are imported at first use."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_names(
    package: str,
    homes: Mapping[str, Sequence[str]],
    *,
    more: Mapping[str, Sequence[str]] | None = None,
    folders: Sequence[str] = (),
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """A package's `__getattr__`, `__dir__` and `__all__`, for names that are imported at first use.

    Args:
        package: The package's `__name__`.
        homes: Names by the module that holds them, relative to the package. No name may be a module's of the package:
            whether a program gets the one or the other would depend on what it has imported before.
        more: As `homes`: names that can be imported, and are not listed.
        folders: Modules inside it that are attributes of it, too, without an import of theirs.
    """
    listed = {name: module for module, names in homes.items() for name in names}
    home_of = {name: module for module, names in (more or {}).items() for name in names} | listed

    def getattr_(name: str) -> Any:
        if name in folders:
            return import_module(f"{package}.{name}")
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{home_of[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    def dir_() -> list[str]:
        return sorted({*vars(sys.modules[package]), *listed, *folders})

    return getattr_, dir_, sorted(listed)
