"""Functions of one's own, which a command line names as `module:function`."""

import importlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def is_name(source: str) -> bool:
    """Whether a source is the name of a function in Python."""
    module, _, factory = source.partition(":")
    return factory.isidentifier() and all(part.isidentifier() for part in module.split("."))


def call(source: str) -> Any:
    """What the function of a name returns; its module may be in the current folder.

    Raises:
        ConfigError: There is no such function, or it raises.
    """
    import l0prune

    module, _, factory = source.partition(":")
    sys.path.insert(0, "")
    try:
        return getattr(importlib.import_module(module), factory)()
    except Exception as error:
        # Somebody's own code may raise anything.
        got = f"{type(error).__name__}: {error}"
        raise l0prune.ConfigError("factory makes nothing", where=source, got=got, expected="module:factory") from error
    finally:
        sys.path.pop(0)


def builder(source: str | None) -> "Callable[[], nn.Module] | None":
    """What makes the dense network, as `--build` names it: the network, or the network and its example inputs.

    Raises:
        ConfigError: It is no name of a function.
    """
    import l0prune

    if source is None:
        return None
    if not is_name(source):
        raise l0prune.ConfigError("not the name of a function", where="--build", got=source, expected="MODULE:FUNCTION")

    def build() -> "nn.Module":
        made = call(source)
        pair: tuple[Any, ...] = made if isinstance(made, tuple) and made else (made,)
        return pair[0]

    return build
