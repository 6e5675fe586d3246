"""What the end of a run does, tried before its first step: no error should first be seen after hours of training."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from l0prune.errors import ProofError, RunError
from l0prune.example import Observe
from l0prune.proof import relative_difference, run_seeded, tolerance_for
from l0prune.removal import RemovalPlan
from l0prune.storage.model_file import load, save
from l0prune.support import random_state_kept


def rehearse_saving(
    module: nn.Module,
    plan: RemovalPlan,
    observe: Observe,
    *,
    build: Callable[[], nn.Module] | None,
    tolerance: float,
    folder: Path | None = None,
    **description: Any,
) -> None:
    """Save a pruned network to a temporary folder, load it, and compare; nothing is left of it.

    Args:
        module: The pruned network, in evaluation mode.
        plan: The plan that made it.
        observe: Runs a network on example inputs.
        build: Makes the dense network; None where the plugin of the description does.
        tolerance: Largest relative difference between outputs.
        folder: Where the temporary folder is made; by default where the system keeps such ones.
        description: As `save` takes it.

    Raises:
        ProofError: What is loaded behaves otherwise.
        RunError: The temporary folder cannot be made.
        L0PruneError: As `save` and `load` do.
    """
    try:
        # A name that sweeping a run directory knows.
        temporary = TemporaryDirectory(prefix=".rehearsal.partial", dir=folder, ignore_cleanup_errors=True)
    except OSError as error:
        hint = "free some space or choose another folder"
        raise RunError("cannot write", where=folder, got=error.strerror, hint=hint) from error
    with temporary as place, random_state_kept(), torch.no_grad():
        save(module, plan, place, **description)
        loaded = load(place, build)
        device = next(module.parameters()).device
        difference = relative_difference(run_seeded(observe, module), run_seeded(observe, loaded.to(device)))
    if not difference <= tolerance_for(module, tolerance):
        got = f"a relative difference of {difference:.1e}"
        raise ProofError("what is saved and loaded is another network", got=got, expected=f"at most {tolerance:.0e}")
