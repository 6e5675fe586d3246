"""Rounding to eight bits while a network is trained, so that it learns to be right after it.

Weights have one scale for each output channel, activations one for each tensor, which is that of the batch at hand:
nothing is kept from batch to batch. Gradients pass as if nothing were rounded (the straight-through estimator, arXiv
1308.3432; quantisation-aware training, arXiv 1712.05877).
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from l0prune.support import own_parameters

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_LARGEST = 127
_LEVELS = 255
_SMALLEST = 1e-12


def rounded_weight(weight: Tensor) -> Tensor:
    """A weight (O, ...), rounded with a scale for each of its O output channels."""
    with torch.no_grad():
        wide = weight.detach().float()
        scale = wide.abs().reshape(len(wide), -1).amax(dim=1).clamp_min(_SMALLEST) / _LARGEST
        scale = scale.reshape(-1, *[1] * (weight.ndim - 1))
        change = (wide / scale).round() * scale - wide
    return weight + change.to(weight.dtype)


def rounded_activations(x: Tensor) -> Tensor:
    """Activations of any shape, rounded with the scale of their range, which holds zero."""
    with torch.no_grad():
        wide = x.detach().float()
        low, high = wide.amin().clamp_max(0), wide.amax().clamp_min(0)
        scale = (high - low).clamp_min(_SMALLEST) / _LEVELS
        zero = (-low / scale).round()
        change = (((wide / scale).round() + zero).clamp(0, _LEVELS) - zero) * scale - wide
    return x + change.to(x.dtype)


@contextmanager
def rounding(module: nn.Module, *, activations: bool = True) -> Iterator[int]:
    """Round weights of linear layers and convolutions, and what they are given, as long as the context is open.

    Weights that a parametrization makes stay as they are. Parameters, their names and their order do not change.

    Args:
        module: Trained meanwhile.
        activations: Whether inputs are rounded, or weights alone.

    Yields:
        The number of layers that round.
    """
    with ExitStack() as handles:
        count = 0
        for layer in module.modules():
            if not isinstance(layer, LAYERS) or "weight" not in own_parameters(layer):
                continue
            swap = _Swap(activations)
            for handle in (
                layer.register_forward_pre_hook(swap.before),
                layer.register_forward_hook(swap.after, always_call=True),
            ):
                handles.callback(handle.remove)
            count += 1
        yield count


class _Swap:
    """A layer's weight, in whose place the rounded one stands during a forward pass.

    Args:
        activations: Whether the input is rounded too.
    """

    def __init__(self, activations: bool) -> None:
        self.activations = activations
        self.weight: Tensor | None = None

    def before(self, layer: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
        """Put the rounded weight in place; the input, rounded."""
        table: Any = own_parameters(layer)
        self.weight = table["weight"]
        # In the table itself: the parameter keeps its place among the others.
        table["weight"] = rounded_weight(table["weight"])
        return (rounded_activations(given[0]), *given[1:]) if self.activations and given else given

    def after(self, layer: Any, _given: Any, _output: Any) -> None:
        """Put the parameter back."""
        if self.weight is not None:
            table: Any = own_parameters(layer)
            table["weight"], self.weight = self.weight, None
