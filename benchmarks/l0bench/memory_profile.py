"""What PyTorch's profiler sees of memory: another count than that of tensors and their lifetimes."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile


@torch.no_grad()
def profiled_peak(model: nn.Module, *inputs: Tensor, run: Callable[[], object] | None = None) -> int:
    """Bytes of weights, inputs and the most that the allocator gave out at once during a forward pass on the CPU.

    Args:
        model: In evaluation mode.
        inputs: What it is given.
        run: The forward pass; by default that of the inputs.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            outputs = run() if run is not None else model(*inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    assert outputs is not None
    events = profiler.profiler.kineto_results.events()  # pyright: ignore[reportOptionalMemberAccess]
    moved = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    held = peak = 0
    for _, size in moved:
        held += size
        peak = max(peak, held)
    tensors = [*model.parameters(), *model.buffers(), *inputs]
    return peak + sum(tensor.numel() * tensor.element_size() for tensor in tensors)
