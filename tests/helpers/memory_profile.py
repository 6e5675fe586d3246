"""What PyTorch's profiler sees of memory: another count than that of tensors and their lifetimes."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile


@torch.no_grad()
def profiled_peak(model: nn.Module, *inputs: Any) -> int:
    """Bytes of weights, inputs and the most that the allocator gave out at once during a forward pass on the CPU."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            outputs = model(*inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    assert outputs is not None
    events = profiler.profiler.kineto_results.events()  # pyright: ignore[reportOptionalMemberAccess]
    moved = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    held = peak = 0
    for _, size in moved:
        held += size
        peak = max(peak, held)
    tensors = [*model.parameters(), *model.buffers(), *(given for given in inputs if isinstance(given, Tensor))]
    return peak + sum(tensor.numel() * tensor.element_size() for tensor in tensors)
