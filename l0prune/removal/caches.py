"""Layers that write keys and values to a cache under a number of their own, once some layers are gone.

Caches of transformers say how long they are by what layer 0 has written: without it, generation would go on from the
wrong position.
"""

from typing import Any

from torch import nn

_NUMBER = "layer_idx"


def caching_order(model: nn.Module) -> dict[nn.Module, int]:
    """The innermost modules that know their number in a cache, with the number."""
    numbered = [module for module in model.modules() if type(vars(module).get(_NUMBER)) is int]
    outer = {module for module in numbered for inner in module.modules() if inner is not module and inner in numbered}
    return {m: vars(m)[_NUMBER] for m in numbered if m not in outer and any(True for _ in m.parameters())}


def renumber_caches(model: nn.Module, before: dict[nn.Module, int]) -> None:
    """Let a layer that is left write under the number of the first one, where that went.

    Args:
        model: The model, without the layers that went.
        before: `caching_order` of it, with them.
    """
    here = set(model.modules())
    left = [module for module in before if module in here]
    first = min(before.values(), default=0)
    if not left or first in {before[module] for module in left}:
        return
    gone = next(module for module, number in before.items() if number == first)
    # A cache keeps less of a layer that looks back a few positions only.
    alike = [module for module in left if _window(module) == _window(gone)] or left
    least = min(before[module] for module in alike)
    for module in alike:
        if before[module] == least:
            setattr(module, _NUMBER, first)


def _window(module: nn.Module) -> Any:
    return getattr(module, "sliding_window", None)
