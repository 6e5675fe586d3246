"""The state of a run on disk: saved atomically, loaded without executing anything."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch

from l0prune.errors import RunError
from l0prune.files import write_atomic

CHECKPOINT_VERSION = 1
_KEPT = 2
_DAMAGE = (OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, pickle.UnpicklingError)


def save_checkpoint(folder: Path, position: int, state: dict[str, Any]) -> Path:
    """Save a state of tensors, numbers, strings and containers; older checkpoints but one are deleted.

    Args:
        folder: The checkpoint folder.
        position: Optimizer steps since the run began, over all stages; names the file.
        state: What `load_checkpoint` will give back.
    """
    path = folder / f"step-{position:08d}.pt"
    write_atomic(path, lambda temporary: torch.save({"version": CHECKPOINT_VERSION, **state}, temporary))
    for old in checkpoints(folder)[:-_KEPT]:
        old.unlink()
    return path


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a folder, oldest first."""
    return sorted(folder.glob("step-*.pt"))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint onto the CPU.

    Raises:
        RunError: The file is damaged, of another version, or holds more than data.
    """
    try:
        with warnings.catch_warnings():
            # What torch warns of in a file that it then refuses is of no use.
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        got = "more than data" if isinstance(error, pickle.UnpicklingError) else type(error).__name__
        hint = "delete it to go on from the one before, if there is one"
        raise RunError("damaged checkpoint", where=path, got=got, hint=hint) from error
    if not isinstance(state, dict) or state.get("version") != CHECKPOINT_VERSION:
        got = state.get("version") if isinstance(state, dict) else type(state).__name__
        raise RunError("checkpoint of another version", where=path, got=got, expected=CHECKPOINT_VERSION)
    return state


def random_state() -> dict[str, Any]:
    """The state of torch's random generators."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def restore_random_state(state: dict[str, Any]) -> None:
    """Put back what `random_state` returned."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
