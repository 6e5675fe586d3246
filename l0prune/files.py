"""Files that are whole or absent: written beside their place, synchronised, then renamed into it."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from l0prune.errors import RunError

_REFUSALS = ("No space left", "write failed", "unexpected pos", "cannot be opened", "I/O error", "os error")


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Create `path` in one step.

    Args:
        path: The file to make or replace.
        write: Writes the content to the temporary path it is given.

    Raises:
        RunError: The disk is full or not writable; what stood at `path` is unharmed.
    """
    # The suffix stays: some writers go by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
            # Some writers make files for their owner alone; a new file has the permissions the user's mask allows.
            os.fchmod(file.fileno(), 0o666 & ~_mask())
        temporary.replace(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise RunError(
            "cannot write", where=path, got=error.strerror or error, hint="free some space or choose another folder"
        ) from error
    except (RuntimeError, SafetensorError) as error:
        # torch and safetensors report the operating system's refusal as errors of their own.
        if not any(sign in str(error) for sign in _REFUSALS):
            raise
        raise RunError("cannot write", where=path, got="disk full or not writable", hint="free some space") from error
    finally:
        # What prevented the writing may prevent this too, and is the error worth telling.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Create or replace a text file in one step."""
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Create or replace a JSON file in one step."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        RunError: It is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError("cannot read", where=path, got=error.strerror) from error
    except ValueError as error:
        raise RunError("not a JSON file", where=path, got=error) from error


def _mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
