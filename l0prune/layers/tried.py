"""What trying out a module has shown, for modules that compute alike."""

import functools
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from l0prune.support import own_parameters

_known: weakref.WeakKeyDictionary[type, dict[tuple[Any, ...], bool]] = weakref.WeakKeyDictionary()
_CONSTANTS = (bool, int, float, str, type(None), torch.dtype)


def tried_once(test: Callable[[nn.Module], bool]) -> Callable[[nn.Module], bool]:
    """A test of modules whose answer does not depend on the values of their weights: a network has many that are alike.

    What it raises is raised each time.
    """

    @functools.wraps(test)
    def answer(module: nn.Module) -> bool:
        key = _habits(module)
        if key is None:
            return test(module)
        answers = _known.setdefault(type(module), {})
        if (test.__name__, key) not in answers:
            answers[test.__name__, key] = test(module)
        return answers[test.__name__, key]

    return answer


def _habits(module: nn.Module) -> tuple[Any, ...] | None:
    """All that the outputs of a module depend on beside the values of its weights.

    None where it has hooks, buffers, children, a forward of its own or other things.
    """
    own = own_parameters(module)
    # Not the function itself, which may hold the class.
    found: list[Any] = [id(type(module).forward)]
    for name, value in vars(module).items():
        if type(value) in _CONSTANTS:
            found.append((name, type(value), value))
        elif value is not own and not (isinstance(value, dict | list | set | tuple) and not value):
            return None
    found += [(name, None if p is None else (p.shape, p.dtype, p.device)) for name, p in own.items()]
    return tuple(found)
