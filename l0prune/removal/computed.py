"""What modules have computed of their weights, and keep to compute it no more: a cut makes it wrong."""

import re

from torch import Tensor, nn

_CACHE = re.compile(r"cache", re.IGNORECASE)


def forget_computed(module: nn.Module) -> None:
    """Empty the dictionaries of tensors that a module calls a cache, tables of relative positions by device say.

    Args:
        module: One of which a weight has been cut.
    """
    for name, value in [*vars(module).items()]:
        if _CACHE.search(name) and isinstance(value, dict) and any(isinstance(x, Tensor) for x in value.values()):
            # A dictionary of its own: copies of a module may share theirs.
            setattr(module, name, {})
