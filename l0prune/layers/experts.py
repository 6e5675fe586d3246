"""Experts whose weights are stacked, one expert after the other, as transformers keeps them.

Legend: X experts, I units between their two layers, H features.
"""

import copy
from typing import Any

from torch import Tensor, nn

from l0prune.layers.registry import Layer, Stays, register_alike

ALIGNED = 8
"""Channels that a grouped matrix product counts by: rows of 16 bytes, in half precision too."""


def _stacked(module: nn.Module, name: str) -> bool:
    weight = getattr(module, name, None)
    return isinstance(weight, Tensor) and weight.ndim == 3


def are_experts(module: nn.Module) -> bool:
    """Whether a module holds the weights of experts, stacked."""
    return _stacked(module, "down_proj") and (_stacked(module, "gate_up_proj") or _stacked(module, "up_proj"))


def tensors_of_experts(module: nn.Module) -> list[str]:
    """Names of a module's own tensors, (X, ...) each."""
    own = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
    return [name for name, tensor in own.items() if tensor.ndim > 1 and len(tensor) == len(module.down_proj)]  # type: ignore[arg-type]


def _units(module: Any) -> dict[tuple[str, int], str]:
    """The first layer's outputs, (X, I or 2 I, H), or (X, H, I or 2 I) in a class that says it is transposed."""
    name = "gate_up_proj" if _stacked(module, "gate_up_proj") else "up_proj"
    return {(name, 2 if getattr(module, "is_transposed", False) else 1): "unit"}


def computes_one_by_one(module: nn.Module | None) -> bool:
    """Whether experts that use a grouped product can do without it, so that any width will do."""
    implementation = getattr(getattr(module, "config", None), "_experts_implementation", None)
    return module is not None and implementation not in (None, "eager") and are_experts(module)


def _compute_one_by_one(module: Any, stays: Stays) -> None:
    """Leave the grouped product, which takes widths of whole rows of 16 bytes alone, where these are others now.

    The class's own forward, which goes from expert to expert, takes any.
    """
    if not computes_one_by_one(module):
        return
    weights = [getattr(module, name) for name in ("gate_up_proj", "up_proj", "down_proj") if _stacked(module, name)]
    if any(extent % ALIGNED for weight in weights for extent in weight.shape[1:]):
        # The model's other layers keep theirs.
        module.config = copy.deepcopy(module.config)
        module.config._experts_implementation = "eager"


register_alike(are_experts, Layer(units=_units, cut=_compute_one_by_one))
