"""Processes that run `l0prune`, forked from one that has imported everything and so begun at once."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Forked:
    """A running process."""

    number: int
    log: Path
    server: "Forks"

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.number, number)

    def wait(self) -> int:
        """Its exit status, or minus the signal that ended it."""
        return int(self.server.ask(str(self.number)))


class Forks:
    """Starts processes; those that belong together meet at a port of its own."""

    def __init__(self) -> None:
        # Whoever asks for a free port is given another; torch, which reuses addresses, may listen at this one.
        self._place = socket.socket()
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._place.bind(("127.0.0.1", 0))
        self.port = self._place.getsockname()[1]
        command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("forking_server.py"))]
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(
        self,
        arguments: list[object],
        log: Path,
        environ: Mapping[str, object] | None = None,
        *,
        errors: Path | None = None,
        alone: bool = False,
    ) -> Forked:
        """Start `l0prune ARGUMENTS`.

        Args:
            arguments: Of the command.
            log: For what it prints.
            environ: Variables of its environment that are changed.
            errors: For what goes to standard error; by default it is part of the log.
            alone: Whether it leads a group of processes, to which a signal can be sent.
        """
        order = {
            "arguments": [*map(str, arguments)],
            "log": str(log),
            "errors": str(errors or log),
            "alone": alone,
            "environ": {name: str(value) for name, value in (environ or {}).items()},
        }
        return Forked(number=int(self.ask(json.dumps(order))), log=log, server=self)

    def ask(self, line: str) -> str:
        """What the server answers."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(f"{line}\n")
        self._server.stdin.flush()
        return self._server.stdout.readline()

    def close(self) -> None:
        """End the server."""
        self._server.kill()
        self._server.communicate()
        self._place.close()
