"""An operator of one's own, x W' + b cut off at zero in one call, and the rule by which l0prune follows it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from l0prune.discovery import Tracer, consume, extent, operator_rule


@torch.library.custom_op("fused_linear::linear_relu", mutates_args=())
def linear_relu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x: (..., I); weight: (O, I); bias: (O,) -> (..., O)."""
    return nn.functional.linear(x, weight, bias).clamp_min_(0)


def _keep(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2], output)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x, weight, output = ctx.saved_tensors
    grad = grad * (output > 0)
    rows = grad.flatten(0, -2)
    return grad @ weight, rows.T @ x.flatten(0, -2), rows.sum(0)


linear_relu.register_autograd(_gradients, setup_context=_keep)
# In mixed precision it computes in float32.
linear_relu.register_autocast("cpu", torch.float32)


@linear_relu.register_fake
def _shapes(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The result without values, for exports and for counting."""
    return x.new_empty(*x.shape[:-1], len(weight))


@operator_rule(linear_relu)
def _linear_relu(tracer: Tracer, args: Sequence[Any], out: Tensor) -> dict[int, Any]:
    x, weight, bias = args
    consume(tracer, tracer.along(x, -1), tracer.along(weight, 1), weight, x)
    made = tracer.along(weight, 0)
    tracer.unify(made, tracer.along(bias, 0))
    tracer.cost(x.numel() // x.shape[-1], extent(tracer, weight, 0), extent(tracer, weight, 1))
    return {dim: tracer.along(x, dim) for dim in range(x.ndim - 1)} | {-1: made}


class FusedLinear(nn.Linear):
    """A linear layer and a rectifier in one operator."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., I) -> (..., O)."""
        return linear_relu(x, self.weight, self.bias)
