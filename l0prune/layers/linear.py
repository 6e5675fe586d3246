"""Layers that weigh or look up features: linear ones, embeddings, and those that look like them."""

from typing import Any

import torch
from torch import Tensor, nn

from l0prune.layers.open_norms import OpenChannels
from l0prune.layers.registry import Layer, register, register_alike


def shape_of(module: nn.Module) -> tuple[int, ...]:
    """Shape of a layer's weight, which may be computed; () where it has none."""
    weight = getattr(module, "weight", None)
    return tuple(weight.shape) if isinstance(weight, Tensor) else ()


def is_transposed(module: nn.Module) -> bool:
    """Whether it is transformers' Conv1D, a linear layer with its weight transposed."""
    return type(getattr(module, "nf", None)) is int and type(getattr(module, "nx", None)) is int


def _looks_linear(module: nn.Module) -> bool:
    """Whether a module keeps a weight (out, in) and the number of its outputs, as nn.Linear does."""
    shape = shape_of(module) if type(getattr(module, "out_features", None)) is int else ()
    inputs = getattr(module, "in_features", shape[-1] if shape else 0)
    return len(shape) == 2 and (module.out_features, inputs) == shape


def _linear_sizes(module: Any) -> dict[str, int]:
    # A class that derives from nn.Linear may keep its weight as something else.
    names = ("out_features", "in_features")
    return {name: n for name, n in zip(names, shape_of(module), strict=False) if hasattr(module, name)}


def _lowest_where_closed(layer: Any, x: Tensor, opened: Any, weight: Any, bias: Any, dim: int) -> Tensor:
    """The scores of a router, (..., X): a closed expert has the lowest there is, so that it is never picked."""
    scores = nn.functional.linear(x, weight, bias)
    mask = opened.opened if isinstance(opened, OpenChannels) else opened
    return scores.masked_fill(mask.to(scores.device) == 0, torch.finfo(scores.dtype).min)


_LINEAR = Layer(units={("weight", 0): "unit"}, sizes=_linear_sizes, over_open=_lowest_where_closed)
_EMBEDDING = Layer(
    units={("weight", 1): "embedding"}, sizes={"num_embeddings": ("weight", 0), "embedding_dim": ("weight", 1)}
)

register(nn.Linear, _LINEAR)
register(
    nn.Bilinear,
    Layer(
        units={("weight", 0): "unit"},
        sizes={"out_features": ("weight", 0), "in1_features": ("weight", 1), "in2_features": ("weight", 2)},
    ),
)
register(nn.Embedding, _EMBEDDING)
register(nn.EmbeddingBag, _EMBEDDING)
register(nn.PReLU, Layer(sizes={"num_parameters": ("weight", 0)}))
register_alike(is_transposed, Layer(units={("weight", 1): "unit"}, sizes={"nx": ("weight", 0), "nf": ("weight", 1)}))
register_alike(_looks_linear, _LINEAR)
