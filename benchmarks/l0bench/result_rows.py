"""Results as lines of JSON, appended as they come: a benchmark that was broken off goes on where it stopped."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from l0prune import L0PruneError, RunError
from l0prune.support import safe_children

Row = dict[str, Any]


class ResultRows:
    """The rows of one benchmark.

    Args:
        path: A file of JSON lines; it need not be there yet.
        identity: The fields that tell rows apart. Of rows that agree in all of them the last one counts.
    """

    def __init__(self, path: Path, identity: Sequence[str]) -> None:
        self.path, self._identity = path, tuple(identity)

    def key(self, row: Mapping[str, Any]) -> Hashable:
        """What tells a row apart, of a result or of a wish for one."""
        return tuple(row.get(name) for name in self._identity)

    def read(self) -> list[Row]:
        """All rows that count, in the order of the file; a last line that was not written whole is left out.

        Raises:
            RunError: Another line is no JSON object.
        """
        found: dict[Hashable, Row] = {}
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                found[self.key(row)] = row
            except (ValueError, AttributeError) as error:
                if number < len(lines):
                    raise RunError("not a row of results", where=f"{self.path}, line {number}", got=error) from error
        return list(found.values())

    def missing(self, wished: Iterable[Row], *, commit: str | None = None) -> list[Row]:
        """The wishes for which there is no row.

        Args:
            wished: Rows that hold at least the identity.
            commit: Count only rows of this commit as there.
        """
        there = {self.key(row) for row in self.read() if commit is None or row.get("commit") == commit}
        unique = {self.key(row): row for row in wished}
        return [row for key, row in unique.items() if key not in there]

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row in one write, whole on the disk when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(row, allow_nan=False) + "\n"
        if self.path.exists() and not self.path.read_bytes().endswith(b"\n") and self.path.stat().st_size:
            # What was broken off in the middle of a line must not take this one with it.
            line = "\n" + line
        with open(self.path, "ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())


def told(command: Callable[[], int]) -> int:
    """The exit status of a command over rows.

    Errors of the library are one line, Ctrl-C keeps what is finished, and nothing is said to who has read enough.
    """
    try:
        status = command()
        sys.stdout.flush()
        return status
    except L0PruneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the rows that were finished are kept", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # `head`, for example, closes the pipe. At its end Python writes what is left, which must not fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE


def in_processes(work: Callable[[Row], Row], wishes: Sequence[Row], jobs: int) -> Iterator[Row]:
    """Results as they come, from processes of one thread each.

    Args:
        work: A function of a module, for each wish.
        wishes: What it is given.
        jobs: How many processes.
    """
    if jobs == 1 or len(wishes) <= 1:
        one_thread()
        yield from map(work, wishes)
        return
    waiting = list(wishes)[::-1]
    with safe_children(), ProcessPoolExecutor(jobs, get_context("spawn"), initializer=one_thread) as pool:
        running: set[Future[Row]] = set()
        while waiting or running:
            while waiting and len(running) < jobs:
                running.add(pool.submit(work, waiting.pop()))
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()


def one_thread() -> None:
    """Figures are of one thread, and processes side by side do not disturb each other."""
    torch.set_num_threads(1)


def commit_of(*paths: str) -> str:
    """The short commit of this checkout; with a `+` where one of the paths has changes of its own."""
    folder = Path(__file__).parents[2]

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--", *paths) else "")
