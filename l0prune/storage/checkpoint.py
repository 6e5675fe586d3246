"""The state of a run on disk: saved atomically, loaded without executing anything."""

import hashlib
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import torch

from l0prune.errors import DamagedCheckpoint, RunError
from l0prune.support import pickled_names, write_atomic

CHECKPOINT_VERSION = 2
_SEAL = b"l0prune sha256 "
"""Stands behind torch's own content, before the digest of that content."""
_MOST_OPERATIONS = 20_000_000
"""Of a checkpoint's pickle: a plan lists every unit that is kept."""
_DAMAGE = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError),
    *(TypeError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile),
)


class Origin(TypedDict):
    """Which run a checkpoint is of."""

    run: str | None
    """The run's name; None of a run that earlier versions began."""
    settings: str
    """Digest of those on which the student depends."""


def save_checkpoint(folder: Path, position: int, state: dict[str, Any], *, keep: int = 2) -> Path:
    """Save a state of tensors, numbers, strings and containers.

    Args:
        folder: The checkpoint folder.
        position: Optimizer steps since the run began, over all stages; names the file.
        state: What `load_checkpoint` will give back.
        keep: How many checkpoints are left: older ones are deleted.
    """
    path = folder / _name(position)

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
        pickled_names(path, _MOST_OPERATIONS)
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


def newest_checkpoint(folder: Path, origin: Origin | None = None) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest checkpoint that is whole, or None where none was saved yet.

    Args:
        folder: The checkpoint folder.
        origin: What the run's checkpoints hold as `origin`; not looked at by default.

    Returns:
        The state, and a word on each newer one that is damaged.

    Raises:
        DamagedCheckpoint: All there are are damaged.
        RunError: The newest whole one is of another version, another run or another step than its name says.
    """
    notes: list[str] = []
    error: DamagedCheckpoint | None = None
    for path in reversed(checkpoints(folder)):
        try:
            state = load_checkpoint(path)
        except DamagedCheckpoint as damaged:
            error = error or damaged
            notes.append(f"{damaged}: going on from the one before")
        else:
            _check_place(path, state, origin)
            return state, notes
    if error is not None:
        raise error
    return None, []


def _check_place(path: Path, state: Mapping[str, Any], origin: Origin | None) -> None:
    """Raise a `RunError` where a file has come from elsewhere: another run, or another step of this one."""
    found = state.get("origin")
    # Earlier versions named no runs, and marked no checkpoints.
    if origin is not None and found != (None if found is None and origin["run"] is None else origin):
        if isinstance(found, Mapping) and found.get("run") == origin["run"]:
            hint = "put config.toml back as it was"
            raise RunError("the settings of the run have changed since its checkpoint", where=path, hint=hint)
        hint = "move it away, and resume from one of this run's own"
        raise RunError("checkpoint of another run", where=path, hint=hint)
    position = state.get("position")
    if position is not None and path.name != (_name(position) if isinstance(position, int) else ""):
        raise RunError("checkpoint of another step", where=path, got=f"step {position}", hint="give it its name back")


def _name(position: int) -> str:
    return f"step-{position:08d}.pt"
