"""Deep copies of modules that autograd has been through."""

import copy
from typing import TypeVar

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

M = TypeVar("M", bound=nn.Module)


def copied(module: M) -> M:
    """A deep copy. Activations that a module keeps on itself, an attention map say, are copied without their graph.

    Raises:
        RuntimeError: A tensor is computed from parameters before each forward pass, by `nn.utils.weight_norm` say.
    """
    memo: dict[int, object] = {}
    for part in module.modules():
        kept = {key: value for key, value in vars(part).items() if key not in _computed(part)}
        for leaf in tree_leaves(kept):
            if isinstance(leaf, Tensor) and leaf.grad_fn is not None:
                memo[id(leaf)] = leaf.detach()
    return copy.deepcopy(module, memo)


def _computed(module: nn.Module) -> set[str]:
    """Names of the tensors that a hook puts on a module: a copy would go on with the values of now."""
    return {str(getattr(hook, "name", "")) for hook in module._forward_pre_hooks.values()}
