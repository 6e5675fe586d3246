"""The state of a run on disk: saved atomically, loaded without executing anything."""

import hashlib
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch

from l0prune.errors import DamagedCheckpoint, RunError
from l0prune.support import write_atomic

CHECKPOINT_VERSION = 2
_SEAL = b"l0prune sha256 "
"""Stands behind torch's own content, before the digest of that content."""
_DAMAGE = (
    *(OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, NotImplementedError),
    pickle.UnpicklingError,
)


def save_checkpoint(folder: Path, position: int, state: dict[str, Any], *, keep: int = 2) -> Path:
    """Save a state of tensors, numbers, strings and containers.

    Args:
        folder: The checkpoint folder.
        position: Optimizer steps since the run began, over all stages; names the file.
        state: What `load_checkpoint` will give back.
        keep: How many checkpoints are left: older ones are deleted.
    """
    path = folder / f"step-{position:08d}.pt"

    def write(temporary: Path) -> None:
        torch.save({"version": CHECKPOINT_VERSION, **state}, temporary)
        digest = _digest(temporary, temporary.stat().st_size)
        with temporary.open("ab") as file:
            file.write(_SEAL + digest)

    write_atomic(path, write)
    for old in checkpoints(folder)[:-keep]:
        old.unlink()
    return path


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a folder, oldest first."""
    return sorted(folder.glob("step-*.pt"))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint onto the CPU.

    Raises:
        DamagedCheckpoint: The file is not what was written, by its checksums.
        RunError: It is of another version.
    """
    try:
        sealed = _is_sealed(path)
        with warnings.catch_warnings():
            # What torch warns of in a file that it then refuses is of no use.
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        got = "more than data" if isinstance(error, pickle.UnpicklingError) else type(error).__name__
        raise DamagedCheckpoint("damaged checkpoint", where=path, got=got) from error
    if not isinstance(state, dict) or state.get("version") != CHECKPOINT_VERSION:
        got = state.get("version") if isinstance(state, dict) else type(state).__name__
        raise RunError("checkpoint of another version", where=path, got=got, expected=CHECKPOINT_VERSION)
    if not sealed:
        raise DamagedCheckpoint("damaged checkpoint", where=path, got="no checksum")
    return state


def _is_sealed(path: Path) -> bool:
    """Whether a checksum stands at a file's end.

    Raises:
        ValueError: It is not that of what stands before it.
    """
    size, seal = path.stat().st_size, len(_SEAL) + hashlib.sha256().digest_size
    if size < seal:
        return False
    with path.open("rb") as file:
        file.seek(size - seal)
        mark, digest = file.read(len(_SEAL)), file.read()
    if mark != _SEAL:
        return False
    if digest != _digest(path, size - seal):
        raise ValueError("the checksum is wrong")
    return True


def _digest(path: Path, size: int) -> bytes:
    """SHA-256 of a file's first `size` bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while size and (piece := file.read(min(size, 2**20))):
            digest.update(piece)
            size -= len(piece)
    return digest.digest()


def newest_checkpoint(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest checkpoint that is whole, or None where none was saved yet.

    Returns:
        The state, and a word on each newer one that is damaged.

    Raises:
        DamagedCheckpoint: All there are are damaged.
        RunError: The newest whole one is of another version.
    """
    notes: list[str] = []
    error: DamagedCheckpoint | None = None
    for path in reversed(checkpoints(folder)):
        try:
            return load_checkpoint(path), notes
        except DamagedCheckpoint as damaged:
            error = error or damaged
            notes.append(f"{damaged}: going on from the one before")
    if error is not None:
        raise error
    return None, []
