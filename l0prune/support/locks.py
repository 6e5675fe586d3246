"""One writer a place: locks on files that say who holds them and go with their process."""

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from l0prune.errors import RunError

try:
    import fcntl
except ImportError:  # Windows has no such locks.
    fcntl = None

_held: set[str] = set()
"""What this process holds: the system's locks keep other processes out alone."""


class Busy(RunError):
    """A place that another process writes to."""


@contextmanager
def locked(path: Path, place: Path) -> Iterator[None]:
    """Keep a place to this process while the context lasts.

    The lock goes with the process, however that ends: what is left is a file, which the next one takes over. Processes
    that this one forks do not keep it. Where there are no such locks, nothing is kept out.

    Args:
        path: The lock's file; it is made here and removed at the end.
        place: What it stands for, for messages.

    Raises:
        Busy: Another holds it: says which process, on which host and since when.
        OSError: The file cannot be made.
    """
    name = os.path.realpath(path)
    if name in _held:
        raise _busy(place, f"this process, {os.getpid()}")
    number = _acquire(path, place)
    _held.add(name)
    try:
        yield
    finally:
        _held.discard(name)
        # While it is held, so that none is removed that another process has taken.
        with suppress(OSError):
            path.unlink()
        os.close(number)


def _acquire(path: Path, place: Path) -> int:
    """The descriptor of the file, locked."""
    while True:
        number = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            if fcntl is None:
                return number
            # Not flock(), which the processes that decode data would inherit and outlive this one with.
            fcntl.lockf(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                holder = os.read(number, 200).decode(errors="replace").strip()
                os.close(number)
                raise _busy(place, holder or "a process that has just begun") from error
        try:
            # Who held it may have removed it since it was opened.
            if os.path.samestat(os.fstat(number), path.stat()):
                _sign(number, path)
                return number
        except FileNotFoundError:
            pass
        except OSError:
            os.close(number)
            raise
        os.close(number)


def _sign(number: int, path: Path) -> None:
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    try:
        os.ftruncate(number, 0)
        os.write(number, f"process {os.getpid()} on {socket.gethostname()}, since {since}\n".encode())
    except OSError:
        # While it is held, as at the end.
        path.unlink(missing_ok=True)
        raise


def _busy(place: Path, holder: str) -> Busy:
    hint = "wait until it has ended, or choose another place"
    return Busy("another process writes here", where=place, got=holder, hint=hint)
