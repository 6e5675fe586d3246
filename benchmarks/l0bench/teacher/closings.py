"""What a trained encoder's masked prediction costs when one of its parts is closed."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def _zeros(_module: nn.Module, _inputs: Any, output: Any) -> Any:
    return (torch.zeros_like(output[0]), *output[1:]) if isinstance(output, tuple) else torch.zeros_like(output)


def _half(_module: nn.Module, _inputs: Any, output: tuple[Tensor, Any]) -> tuple[Tensor, Any]:
    kept = output[0].clone()
    kept[:, ::2] = 0
    return kept, output[1]


@contextmanager
def _hooked(modules: Iterable[nn.Module], hook: Callable[..., Any]) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def closing_costs(encoder: Any, loss: Callable[[], float]) -> dict[str, float]:
    """How much the loss rises, as a share of it, when a part's output is zero.

    Args:
        encoder: A torchaudio Wav2Vec2Model.
        loss: Measures the masked loss, the same way each time.

    Returns:
        Loss when closed / loss - 1, of all heads, the positional convolution, each layer's attention, each FFN, and
        every second channel of each convolution.
    """
    transformer = encoder.encoder.transformer
    parts: dict[str, tuple[list[nn.Module], Callable[..., Any]]] = {
        "all heads": ([layer.attention for layer in transformer.layers], _zeros),
        "positional convolution": ([transformer.pos_conv_embed], _zeros),
    }
    for index, layer in enumerate(transformer.layers):
        parts[f"attention of layer {index}"] = ([layer.attention], _zeros)
        parts[f"FFN of layer {index}"] = ([layer.feed_forward], _zeros)
    for index, convolution in enumerate(encoder.feature_extractor.conv_layers):
        parts[f"half of convolution {index}"] = ([convolution], _half)
    open_loss = loss()
    costs = {}
    for name, (modules, hook) in parts.items():
        with _hooked(modules, hook):
            costs[name] = loss() / open_loss - 1
    return costs
