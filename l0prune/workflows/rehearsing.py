"""The end of a training loop of one's own, tried before it."""

import time
from collections.abc import Callable
from typing import Any

from torch import nn

from l0prune.pruner import L0Pruner
from l0prune.storage import rehearse_saving
from l0prune.support import known_arguments


@known_arguments
def rehearse(pruner: L0Pruner, export: Callable[[nn.Module], Any] | None = None) -> float:
    """Try what the end of a training loop will do: the cut, its proof, `save`, `load`, and an export of your own.

    Everything is done on copies, with the units that the gates would choose now. `wrap` has tried the cut alone.

    Args:
        pruner: What `wrap` returned, at any step.
        export: Called with the pruned module: `lambda module: torch.onnx.export(module, ...)`, for example.

    Returns:
        Seconds it took.

    Raises:
        ProofError: The cut is not exact, or what is saved and loaded is another network.
        L0PruneError: As `save` and `load` do; and whatever `export` raises.
    """
    begin = time.perf_counter()
    pruned, plan = pruner.rehearsed()
    rehearse_saving(pruned, plan, pruner.observe, build=pruner.dense, tolerance=pruner.tolerance)
    if export is not None:
        export(pruned)
    return time.perf_counter() - begin
