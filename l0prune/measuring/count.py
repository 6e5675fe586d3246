"""What a network costs: parameters, multiply-accumulates, memory."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from l0prune.support import is_inside, plain_attention


def parameters(model: nn.Module) -> int:
    """Number of parameters; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def macs(run: Callable[[], object]) -> int:
    """Multiply-accumulates of the matrix products, convolutions and attention products that `run()` performs.

    Source: torch's FlopCounterMode, which counts two operations for each.
    """
    return _counted(run).get_total_flops() // 2


def macs_by_module(model: nn.Module, inputs: Sequence[Tensor]) -> dict[str, int]:
    """Multiply-accumulates of `model(*inputs)` by the path of the module that performs them itself, not in a child.

    Args:
        model: On any device; on "meta" nothing is computed.
        inputs: Positional arguments, on the same device.
    """
    root = type(model).__name__
    # The counter names modules from the root's class on, and counts what they call as theirs too.
    counts = {
        path: sum(found.values()) // 2 for path, found in _counted(lambda: model(*inputs)).get_flop_counts().items()
    }
    own = {path: count for path, count in counts.items() if is_inside(path, root)}
    for path in sorted(own, key=len):
        above = path.rpartition(".")[0]
        while above and above not in own:
            above = above.rpartition(".")[0]
        if above:
            own[above] -= counts[path]
    return {path[len(root) + 1 :]: count for path, count in own.items() if count}


@torch.no_grad()
def _counted(run: Callable[[], object]) -> FlopCounterMode:
    # Fused kernels are unknown to the counter; the plain ones are matrix products that it knows.
    with sdpa_kernel(SDPBackend.MATH), plain_attention(), FlopCounterMode(display=False) as counter:
        run()
    return counter
