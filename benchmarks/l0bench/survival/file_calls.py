"""The file-system calls that this process makes below a folder: counted, and one of them made to go wrong.

Python's own calls are seen as its audit events and by wrappers of what has none (`write`, `fsync`). Files that torch
and safetensors write in native code count as one call each; one that goes wrong leaves half of its file.
"""

import builtins
import errno
import io
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_REMOVING = ("remove", "rmdir", "chmod")
"""Calls that a full disk allows."""
_EVENTS = {"os.mkdir": "mkdir", "os.remove": "remove", "os.rmdir": "rmdir", "os.rename": "rename"}


class FileCalls:
    """Counts calls, once `install` was called. It cannot be undone: for child processes alone.

    Args:
        root: The folder.
        at: The number of the call at which the fault comes; None for none.
        fault: "kill": the process is killed in the middle of the call. "full": this and all later calls that need
            space fail. "look": nothing goes wrong.
        look: Sees the files as they are before that call.
    """

    def __init__(self, root: Path, at: int | None = None, fault: str = "", look: Callable[[], None] = lambda: None):
        self.root, self.at, self.fault, self.look = os.path.realpath(root), at, fault, look
        self.made: list[str] = []
        """Every call: what was done, and to which file."""
        self._looking = False

    def install(self) -> None:
        """Begin to count."""
        sys.addaudithook(self._audit)
        real_fsync, real_write, real_truncate = os.fsync, os.write, os.ftruncate

        def fsync(number: int) -> None:
            self._call("fsync", number)
            real_fsync(number)

        def write(number: int, data: bytes) -> int:
            self._call("write", number, lambda: real_write(number, bytes(data)[: len(data) // 2]))
            return real_write(number, data)

        def ftruncate(number: int, length: int) -> None:
            self._call("truncate", number)
            real_truncate(number, length)

        os.fsync, os.write, os.ftruncate = fsync, write, ftruncate
        builtins.open = io.open = self._opener(io.open)
        self._wrap_native()

    def _wrap_native(self) -> None:
        import safetensors.torch
        import torch

        def wrapped(real: Callable[..., Any], place: int) -> Callable[..., Any]:
            def write(*arguments: Any, **more: Any) -> Any:
                path = arguments[place]
                if not isinstance(path, str | Path):
                    return real(*arguments, **more)

                def half() -> None:
                    real(*arguments, **more)
                    os.truncate(path, os.path.getsize(path) // 2)

                self._call("write", path, half)
                return real(*arguments, **more)

            return write

        torch.save = wrapped(torch.save, 1)
        safetensors.torch.serialize_file = wrapped(safetensors.torch.serialize_file, 1)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _mode, flags = arguments
            if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self._call("open", path)
        elif event in _EVENTS:
            path, folder = arguments[0], arguments[-1]
            if event != "os.rename" and isinstance(folder, int) and folder >= 0 and not os.path.isabs(path):
                path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fspath(path))
            self._call(_EVENTS[event], path)

    def _opener(self, real: Callable[..., Any]) -> Callable[..., Any]:
        calls = self

        class Counted(io.FileIO):
            def write(self, data: Any) -> int:
                content = bytes(data)
                calls._call("write", self.fileno(), lambda: super(Counted, self).write(content[: len(content) // 2]))
                return super().write(content)

        def open(
            file: Any, mode: str = "r", buffering: int = -1, encoding=None, errors=None, newline=None, **more: Any
        ):
            if not {*mode} & {*"wax+"} or calls._name(file) is None:
                return real(file, mode, buffering, encoding, errors, newline, **more)
            raw = Counted(file, mode.replace("b", "").replace("t", ""), **more)
            buffer = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return buffer if "b" in mode else io.TextIOWrapper(buffer, encoding, errors, newline)

        return open

    def _name(self, place: Any) -> str | None:
        """The path below the root; None of any other file."""
        try:
            path = os.readlink(f"/proc/self/fd/{place}") if isinstance(place, int) else os.fsdecode(place)
        except (OSError, TypeError):
            return None
        path = os.path.join(os.path.realpath(os.path.dirname(path) or "."), os.path.basename(path))
        return os.path.relpath(path, self.root) if path.startswith(self.root) else None

    def _call(self, what: str, place: Any, half: Callable[[], object] = lambda: None) -> None:
        """Count a call, and let it go wrong where it is its turn."""
        if self._looking or (name := self._name(place)) is None:
            return
        number = len(self.made)
        # Names of what is being written hold the number of the process, or random letters.
        name = re.sub(r"\.partial\w{8}", ".partial", name.replace(f".{os.getpid()}.", "."))
        self.made.append(f"{what} {name}")
        if self.at is None or number < self.at:
            return
        self._looking = True
        try:
            if number == self.at:
                self.look()
            if self.fault == "look":
                return
            if self.fault == "kill":
                half()
                os.kill(os.getpid(), signal.SIGKILL)
            if what not in _REMOVING:
                half()
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            self._looking = False
