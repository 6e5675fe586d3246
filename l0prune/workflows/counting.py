"""Multiply-accumulates of a saved network, on inputs of the shapes that its description states."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from l0prune.measuring import macs
from l0prune.support import copied


def stated_inputs(on: Any, device: str) -> Sequence[Tensor]:
    """Inputs of zeros, of the shapes that the description states; none where it states none.

    Args:
        on: `counted_on` of a description.
        device: Of the inputs.
    """
    try:
        shapes = [(row["shape"], getattr(torch, row["dtype"])) for row in on["inputs"]]
        return [torch.zeros(shape, dtype=dtype, device=device) for shape, dtype in shapes]
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError):
        return []


def macs_on(on: Any, network: nn.Module) -> int | None:
    """Multiply-accumulates on those inputs, as reports quote them; None where they cannot be counted."""
    try:
        inputs = stated_inputs(on, "meta")
        bare = copied(network).eval().to("meta")
        return round(macs(lambda: bare(*inputs)) * on["scale"]) if inputs else None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError):
        # None are stated, a forward pass that computes nothing cannot be made, or the scale is no number.
        return None
