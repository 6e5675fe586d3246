"""Arguments that a public function does not have: one line, which names the nearest."""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

from l0prune.errors import ConfigError, nearest

P = ParamSpec("P")
R = TypeVar("R")

_TORCH_PRUNING = {"pruning_ratio": "target_sparsity", "ignored_layers": "ignored"}
"""Arguments of torch-pruning's pruners, and what they are called here."""
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def known_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function refuse arguments that it does not have by a `ConfigError`, as it refuses wrong values.

    A warning that is to name the caller's line counts one frame more.
    """
    known = {name for name, one in inspect.signature(function).parameters.items() if one.kind in _BY_NAME} - {"self"}

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        check_arguments(kwargs, known)
        return function(*args, **kwargs)

    return call


def check_arguments(given: Iterable[str], known: Iterable[str]) -> None:
    """Raise a `ConfigError` for the first name of an argument that there is not.

    Args:
        given: Names.
        known: Those that there are.
    """
    known = {*known}
    for name in given:
        if name in known:
            continue
        if _TORCH_PRUNING.get(name) in known:
            hint = "torch-pruning's names are those of l0prune.adapters.torch_pruning.Pruner"
            raise ConfigError("no such argument", where=name, expected=_TORCH_PRUNING[name], hint=hint)
        raise ConfigError("no such argument", where=name, hint=nearest(name, known))
