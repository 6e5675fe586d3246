"""A layer class of one's own with units of its own, and what l0prune has to know of it."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from l0prune.discovery import Tracer, consume, extent, module_rule
from l0prune.layers import Layer, register


class Maxout(nn.Module):
    """Each unit is the largest of several linear pieces, which stand one after the other in the weight."""

    def __init__(self, inputs: int, units: int, pieces: int) -> None:
        super().__init__()
        self.inputs, self.units, self.pieces = inputs, units, pieces
        self.weight = nn.Parameter(torch.randn(units * pieces, inputs) * inputs**-0.5)
        self.bias = nn.Parameter(torch.randn(units * pieces))

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., inputs) -> (..., units)."""
        pieces = nn.functional.linear(x, self.weight, self.bias)
        return pieces.view(*x.shape[:-1], self.units, self.pieces).amax(-1)


register(
    Maxout,
    Layer(
        units={("weight", 0): "maxout"},
        sizes=lambda module: {"inputs": module.weight.shape[1], "units": len(module.weight) // module.pieces},
    ),
)


@module_rule(Maxout)
def _maxout(tracer: Tracer, module: Maxout, args: tuple, kwargs: dict, out: Tensor) -> dict[int, Any]:
    (x,) = args
    weight = module.weight
    consume(tracer, tracer.along(x, -1), tracer.along(weight, 1), weight, x)
    rows = tracer.along(weight, 0)
    tracer.unify(rows, tracer.along(module.bias, 0))
    tracer.cost(x.numel() // x.shape[-1], extent(tracer, weight, 0), extent(tracer, weight, 1))
    carried = {dim: tracer.along(x, dim) for dim in range(x.ndim - 1)}
    if rows is not None:
        # All pieces of a unit go together.
        table = rows.reshape(module.units, module.pieces)
        tracer.unify(table, np.broadcast_to(table[:, :1], table.shape))
        carried[out.ndim - 1] = table[:, 0]
    return carried
