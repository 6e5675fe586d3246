"""Files that are whole or absent: written beside their place, synchronised, then renamed into it."""

import errno
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from l0prune.errors import RunError
from l0prune.support.locks import locked
from l0prune.support.parsing import parse_json, read_text

_REFUSALS = ("No space left", "write failed", "unexpected pos", "cannot be opened", "I/O error", "os error")


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Create `path` in one step, and remove what a process that was killed in the middle of this has left.

    Args:
        path: The file to make or replace.
        write: Writes the content to the temporary path it is given.

    Raises:
        RunError: The disk is full or not writable; what stood at `path` is unharmed.
    """
    for other, process in _left_over(path):
        if not _runs(process):
            # Whoever may write here but not remove: the file itself still counts.
            with suppress(OSError):
                remove(other)
    with _beside(path) as temporary:
        write(temporary)


def check_writable(path: Path) -> None:
    """Check that a file can be made or replaced, before the work whose result it is to hold.

    Args:
        path: The file; what stands there is unharmed, and no folder is left that was not there.

    Raises:
        RunError: It cannot: something else is there, or the folder cannot be made or written.
    """
    made: list[Path] = []
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        made = [folder for folder in path.absolute().parents if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(path)
        temporary.touch()
        temporary.unlink()
    except OSError as error:
        hint = "choose another place"
        raise RunError("cannot write", where=path, got=error.strerror or error, hint=hint) from error
    finally:
        for folder in made:
            # One that could not be made is not there to be removed.
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def assembled(path: Path) -> Iterator[Path]:
    """A free place beside `path` to make a file or folder at; without an error it becomes `path` in one step.

    Until then no other process makes it. What a process that was killed has left of it is removed.

    Args:
        path: The file or folder to make.

    Raises:
        RunError: Something is there already, another process makes it, or the disk is full or not writable.
    """
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(path.with_name(f".{path.name}.lock"), path))
            if os.path.lexists(path):
                raise RunError("already there", where=path, hint="choose another place or remove it")
            for other, _ in _left_over(path):
                remove(other)
        except OSError as error:
            raise _refused(path, error) from error
        yield stack.enter_context(_beside(path))


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        for part in [temporary, *temporary.rglob("*")]:
            _synchronise(part)
        temporary.replace(path)
        _synchronise(path.parent)
    except OSError as error:
        raise _refused(path, error) from error
    except (RuntimeError, SafetensorError) as error:
        # torch and safetensors report the operating system's refusal as errors of their own.
        if not any(sign in str(error) for sign in _REFUSALS):
            raise
        raise RunError("cannot write", where=path, got="disk full or not writable", hint="free some space") from error
    finally:
        # What prevented the writing may prevent this too, and is the error worth telling.
        with suppress(OSError):
            remove(temporary)


def _refused(path: Path, error: OSError) -> RunError:
    hint = "free some space or choose another folder"
    return RunError("cannot write", where=path, got=error.strerror or error, hint=hint)


def remove(path: Path) -> None:
    """Delete a file, a link or a folder, if it is there.

    Raises:
        OSError: It cannot be deleted.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check_inside(path: Path, folder: Path) -> None:
    """Check that what is written to a path stays within a folder, whichever links lie there.

    Raises:
        RunError: A link leads elsewhere.
    """
    if os.path.realpath(path).startswith(os.path.join(os.path.realpath(folder), "")):
        return
    hint = "remove the link, and move what it leads to into the folder"
    raise RunError("a link leads out of the folder", where=path, got=os.path.realpath(path), hint=hint)


def _temporary(path: Path) -> Path:
    """Where a file or folder is made; the suffix stays, for some writers go by it."""
    return path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")


def _left_over(path: Path) -> list[tuple[Path, int]]:
    """What has been made in this way for a path and is not there yet, with the number of the process that makes it."""
    leftover = re.compile(rf"\.{re.escape(path.stem)}\.(\d{{1,9}})\.partial{re.escape(path.suffix)}")
    try:
        found = [(other, leftover.fullmatch(other.name)) for other in path.parent.iterdir()]
    except OSError:
        # No folder yet, or one that cannot be listed: writing will tell.
        return []
    return [(other, int(match[1])) for other, match in found if match]


def _runs(process: int) -> bool:
    """Whether there is such a process on this machine, or that cannot be told."""
    if os.name == "nt":
        # There, this signal would end it.
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _synchronise(path: Path) -> None:
    """Onto the disk, and with the permissions that the user's mask allows: some writers make files for their owner."""
    if os.name == "nt":
        # Windows opens no folders, synchronises what is open for writing alone, and has no such permissions.
        if path.is_file():
            with path.open("r+b") as file:
                os.fsync(file.fileno())
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
        if path.is_file():
            os.fchmod(number, 0o666 & ~_mask())
    finally:
        os.close(number)


def cache_folder() -> Path | None:
    """For what could be made again: `$XDG_CACHE_HOME/l0prune`, else `~/.cache/l0prune`; None without a home."""
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "l0prune"
    try:
        return Path.home() / ".cache" / "l0prune"
    except RuntimeError:
        return None


def free_bytes(path: Path) -> float:
    """Free space on the disk that holds a path, or will; infinite where the disk does not say."""
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    disk = shutil.disk_usage(there)
    # A disk without any size is none, and says so itself.
    return disk.free if disk.total else math.inf


def write_text(path: Path, text: str) -> None:
    """Create or replace a text file in one step."""
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Create or replace a JSON file in one step."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        RunError: It is missing, not JSON, or larger or deeper than any such file.
    """
    try:
        return parse_json(read_text(path, "JSON"))
    except OSError as error:
        raise RunError("cannot read", where=path, got=error.strerror) from error
    except ValueError as error:
        raise RunError("not a JSON file", where=path, got=error) from error


def _mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
