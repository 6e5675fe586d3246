"""What a network costs: parameters, multiply-accumulates, memory."""

import resource
import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from l0prune.errors import ConfigError
from l0prune.support.modules import is_inside
from l0prune.support.torch_internals import plain_attention


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


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory so far: allocated on a CUDA device, else resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def pick_device(name: str) -> torch.device:
    """The device for a setting: "auto" is CUDA where there is a GPU.

    Raises:
        ConfigError: There is no such device, or it cannot compute here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        # A round trip: some names are known to torch and yet no tensor can live there.
        torch.zeros((), device=name).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        expected = "auto, cpu, cuda or cuda:N" if torch.cuda.is_available() else "auto or cpu: no GPU is in reach"
        raise ConfigError("device cannot be used", where=name, expected=expected) from error
    return torch.device(name)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies in bfloat16, rather than emulating it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
