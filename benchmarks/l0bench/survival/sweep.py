"""A fault at each file-system call of a scenario in turn, each in child processes of its own."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import sleep  # Networks of the short runs replace the one of the module.
from typing import Any

from l0bench.survival.file_calls import FileCalls
from l0bench.survival.scenarios import Scenario, emptied
from l0bench.survival.whole import broken
from l0prune.errors import L0PruneError

FAULTS = ("kill", "full")
_DONE, _REFUSED, _WRONG = 0, 2, 1
_LONGEST_SECONDS = 60.0


@dataclass(kw_only=True)
class Outcome:
    """What came of one scenario with one kind of fault."""

    calls: int = 0
    """File-system calls of an undisturbed run."""
    tried: int = 0
    """Calls at which the fault was injected."""
    ended: int = 0
    """Of these, how many ended the process: others did without."""
    wrong: list[str] = field(default_factory=list)
    """What did not hold, and at which call."""


class Sweep:
    """Scenarios, disturbed.

    Args:
        folder: Where they play.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._readings: list[str] = []
        """What was wrong with reading files while something was running."""

    def undisturbed(self, scenario: Scenario) -> tuple[list[str], dict[str, Any]]:
        """The calls of the process that writes, and the end.

        Raises:
            AssertionError: It fails without a fault, or another process writes too.
        """
        place = self._placed(scenario)
        codes, said = self._played(scenario, scenario.act, place)
        assert set(codes) == {_DONE}, said
        (calls, *others) = [json.loads((self.folder / f"calls{rank}").read_text()) for rank in range(len(codes))]
        assert not any(others), others
        assert not (wrong := broken(place)), wrong
        return calls, scenario.end(place)

    def fresh_calls(self, scenario: Scenario, name: str, materials: Path) -> list[str]:
        """The calls of a scenario in a process that is started for it; of several, those of the first.

        Args:
            scenario: What is played.
            name: Its name.
            materials: Where they were made.
        """
        script = Path(__file__).with_name("fresh.py")
        place, processes = self._placed(scenario), scenario.processes
        path = os.pathsep.join([str(script.parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
        environ = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        if processes > 1:
            environ |= _group(_free_port(), processes)
        lists = [self.folder / f"fresh{rank}" for rank in range(processes)]
        started = [
            subprocess.Popen(
                [sys.executable, "-P", str(script), str(materials), name, str(place), str(calls)],
                env={**environ, "RANK": str(rank)} if processes > 1 else environ,
            )
            for rank, calls in enumerate(lists)
        ]
        codes = [child.wait() for child in started]
        assert not any(codes), codes
        return json.loads(lists[0].read_text())

    def swept(
        self, scenario: Scenario, fault: str, calls: Sequence[str], end: dict[str, Any], at: Sequence[int]
    ) -> Outcome:
        """Put the fault at calls in turn.

        Args:
            scenario: What is disturbed.
            fault: One of `FAULTS`, or "look".
            calls: Of an undisturbed run.
            end: Its end.
            at: The numbers of the calls.
        """
        outcome = Outcome(calls=len(calls))
        for number in at:
            wrong, ended = self._tried(scenario, fault, number, end)
            outcome.tried += 1
            outcome.ended += ended
            outcome.wrong += [f"{fault} at call {number}, {calls[number]}: {said}" for said in wrong]
        return outcome

    def _tried(self, scenario: Scenario, fault: str, number: int, end: dict[str, Any]) -> tuple[list[str], bool]:
        place = self._placed(scenario)
        codes, said = self._played(scenario, scenario.act, place, number, fault)
        allowed = {"kill": {-signal.SIGKILL}, "full": {_DONE, _REFUSED}, "look": {_DONE}}[fault]
        wrong = [] if codes[0] in allowed else [f"it ended with {codes[0]}: {said}"]
        if codes[0] == _REFUSED and said.count("\n") != 1:
            wrong.append(f"no single line: {said}")
        wrong += [f"read at that moment: {told}" for told in self._readings]
        if fault != "look":
            wrong += [f"read afterwards: {told}" for told in self._read(scenario, place)]
        wrong += broken(place, ("partial", "lock") if fault == "kill" else ())
        again, said = self._played(scenario, scenario.go_on, place)
        if any(again):
            return [*wrong, f"it does not go on, {again}: {said}"], codes[0] != _DONE
        # The lock of a dead process says nothing, and stays where there is nothing left to do.
        wrong += broken(place, ("lock",) if fault == "kill" else ())
        got = scenario.end(place)
        wrong += [f"another end: {key}" for key in end if got.get(key) != end[key]]
        return wrong, codes[0] != _DONE

    def _placed(self, scenario: Scenario) -> Path:
        emptied(self.folder / "place-page")
        place = emptied(self.folder / "place")
        scenario.prepare(place)
        return place

    def _played(
        self, scenario: Scenario, act: Callable[[Path], None], place: Path, at: int | None = None, fault: str = ""
    ) -> tuple[list[int], str]:
        """Exit codes by rank, and what the process that writes said."""
        port = _free_port() if scenario.processes > 1 else 0

        def process(rank: int) -> Callable[[], None]:
            def play() -> None:
                def look() -> None:
                    """Wait for the reader, which is no child of this process."""
                    os.write(asked[1], b".")
                    os.read(answered[0], 1)

                look_if_read = look if scenario.look else lambda: None
                calls = FileCalls(place, None if rank else at, fault, look_if_read)
                if scenario.processes > 1:
                    os.environ.update(_group(port, scenario.processes) | {"RANK": str(rank)})
                calls.install()
                try:
                    act(place)
                finally:
                    (self.folder / f"calls{rank}").write_text(json.dumps(calls.made))

            return play

        def attend() -> None:
            """Let the reader come where a process waits for it."""
            if select.select([asked[0]], [], [], 0)[0]:
                os.read(asked[0], 1)
                self._readings += self._read(scenario, place)
                os.write(answered[1], b".")

        asked, answered = os.pipe(), os.pipe()
        self._readings = []
        try:
            return self._in_children([process(rank) for rank in range(scenario.processes)], attend)
        finally:
            for end in (*asked, *answered):
                os.close(end)

    def _read(self, scenario: Scenario, place: Path) -> list[str]:
        """What is wrong with reading the files as they are, by a process of its own."""
        if scenario.look is None:
            return []
        look, log = scenario.look, self.folder / "reader-log"
        emptied(self.folder / "place-page")
        log.write_bytes(b"")
        status = os.waitpid(_forked(lambda: look(place), log), 0)[1]
        return [log.read_text() or f"the reader ended with {status}"] if status else []

    def _in_children(self, works: Sequence[Callable[[], None]], attend: Callable[[], None]) -> tuple[list[int], str]:
        """Run each in a process of its own; as torchrun does, the end of the first with an error ends the others."""
        logs = [self.folder / f"log{number}" for number in range(len(works))]
        for log in logs:
            log.write_bytes(b"")
        children = [_forked(work, log) for work, log in zip(works, logs, strict=True)]
        codes: dict[int, int] = {}
        end = time.monotonic() + _LONGEST_SECONDS
        asked = False
        while len(codes) < len(children):
            for child in children:
                if child not in codes and (found := os.waitpid(child, os.WNOHANG))[0]:
                    codes[child] = os.waitstatus_to_exitcode(found[1])
            attend()
            late = time.monotonic() > end
            if late or (any(codes.values()) and not asked):
                asked = True
                for child in children:
                    if child not in codes:
                        os.kill(child, signal.SIGKILL if late else signal.SIGTERM)
            sleep(0.005)
        return [codes[child] for child in children], logs[0].read_text()


def _forked(work: Callable[[], None], log: Path) -> int:
    child = os.fork()
    if child:
        return child
    code, said = _DONE, ""
    try:
        warnings.simplefilter("ignore")
        work()
    except L0PruneError as error:
        code, said = _REFUSED, f"{error}\n"
    except BaseException:
        code, said = _WRONG, traceback.format_exc()
    finally:
        number = os.open(log, os.O_WRONLY | os.O_APPEND)
        os.write(number, said.encode())
        os._exit(code)


def _group(port: int, size: int) -> dict[str, str]:
    """What processes that belong together find in their environment, but their rank."""
    return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}


def _free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]
