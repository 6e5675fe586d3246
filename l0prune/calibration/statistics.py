"""Running statistics of batch norms, which are those of the network that was trained, computed anew for a cut."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from l0prune.distributed import average
from l0prune.support import BatchNorm, evaluating


def has_statistics(model: nn.Module) -> bool:
    """Whether a network has batch norms that keep running statistics."""
    return bool(_norms(model))


@torch.no_grad()
def renew_statistics(model: nn.Module, batches: Iterable[Any], run: Callable[[nn.Module, Any], Any]) -> int:
    """Replace the running statistics of batch norms by their means over batches, in place.

    All else is in evaluation mode meanwhile, and no weight changes. Several processes of a run have the mean of theirs.

    Args:
        model: Any network.
        batches: Calibration batches.
        run: Runs the network on one of them.

    Returns:
        How many norms have new statistics.
    """
    norms = _norms(model)
    if not norms:
        return 0
    momenta = [norm.momentum for norm in norms]
    with evaluating(model):
        try:
            for norm in norms:
                norm.reset_running_stats()
                # The mean over all batches, each of which counts alike.
                norm.momentum = None
                norm.train()
            for batch in batches:
                run(model, batch)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
    average([buffer for norm in norms for buffer in norm.buffers() if buffer.is_floating_point()])
    return len(norms)


def _norms(model: nn.Module) -> list[BatchNorm]:
    return [m for m in model.modules() if isinstance(m, BatchNorm) and m.track_running_stats]
