"""Many inputs read in one child process with bounds on memory and time; one that ends the child is named."""

import faulthandler
import hashlib
import json
import mmap
import os
import resource
import select
import signal
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from l0bench.fuzzing.changes import Changed
from l0bench.fuzzing.readers import Reader
from l0prune.errors import L0PruneError

SECONDS, BYTES = 10.0, 2**30
"""For one input: processor time, which other work on the machine does not change, and memory beyond the parent's."""
_ASLEEP_SECONDS = 600.0
"""For one input: time by the clock, for what waits and never computes."""
FAULTS = ("other", "traceback", "crash", "hang", "memory")
OUTCOMES = ("same", "refused", "changed", *FAULTS)
"""Read as before; refused by one line; read as what the change says, where no checksum tells of it; and the faults:
read as something else in spite of a checksum, an error that is no line, and so on."""
_NUMBER, _BEGUN, _BEGUN_CPU, _SLOWEST, _COUNTS = range(5)
_LONGEST_LINE = 6000
"""Names of 5,000 letters may be quoted."""
_LOOK_EVERY = 0.2


@dataclass(kw_only=True)
class Batch:
    """What became of some inputs."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[dict[str, object]] = field(default_factory=list)
    """Each with its `number`, `outcome` and what was `said`."""
    next: int = 0
    """The first input that was not read."""
    cpu_seconds: float = 0.0
    slowest_seconds: float = 0.0
    """Processor time of the slowest input."""


def read_batch(
    reader: Reader, folder: Path, expected: str, make: Callable[[int], Changed], numbers: range, seconds: float
) -> Batch:
    """Read inputs in one child process, for some time or until one ends it.

    Args:
        reader: Reads each of them, in the place of its sample.
        folder: The samples.
        expected: How what is read of the sample prints.
        make: An input by its number.
        numbers: Of the inputs.
        seconds: No input is begun after these.
    """
    path = folder / reader.file
    whole = path.read_bytes()
    shared = memoryview(mmap.mmap(-1, 8 * (_COUNTS + len(OUTCOMES)))).cast("d")
    shared[_NUMBER] = numbers.start
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told)
        _run_child(reader, folder, expected, make, numbers, seconds, shared, tell)
    os.close(tell)
    try:
        said, hung = _watch(child, told, shared)
        _, status, usage = os.wait4(child, 0)
    finally:
        os.close(told)
        path.write_bytes(whole)
    batch = Batch(next=int(shared[_NUMBER]), cpu_seconds=usage.ru_utime + usage.ru_stime)
    batch.slowest_seconds = shared[_SLOWEST]
    batch.counts.update({name: int(shared[_COUNTS + place]) for place, name in enumerate(OUTCOMES)})
    batch.faults = [json.loads(line) for line in said.splitlines()]
    if status:
        outcome = "hang" if hung else "crash"
        ended_by = f"signal {os.WTERMSIG(status)}, status {os.WEXITSTATUS(status)}"
        told_of = f"{SECONDS} s of processor time" if hung else ended_by
        batch.counts[outcome] += 1
        batch.faults.append({"number": batch.next, "outcome": outcome, "said": told_of})
        batch.next += 1
    return batch


def _watch(child: int, told: int, shared: memoryview) -> tuple[bytes, bool]:
    """What the child says until it ends, and whether it had to be ended."""
    said, hung = b"", False
    while True:
        ready, _, _ = select.select([told], [], [], _LOOK_EVERY)
        if ready:
            piece = os.read(told, 2**16)
            if not piece:
                return said, hung
            said += piece
        elif _is_hanging(child, shared):
            os.kill(child, signal.SIGKILL)
            hung = True


def _is_hanging(child: int, shared: memoryview) -> bool:
    """Whether the input that is being read has used up its time."""
    # Read once: the child sets it back to 0 when an input is done.
    begun = shared[_BEGUN]
    if not begun:
        return False
    # The second field of the line is a name in parentheses, which may hold spaces.
    fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    used = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return used - shared[_BEGUN_CPU] > SECONDS or time.monotonic() - begun > _ASLEEP_SECONDS


def _run_child(
    reader: Reader,
    folder: Path,
    expected: str,
    make: Callable[[int], Changed],
    numbers: range,
    seconds: float,
    shared: memoryview,
    tell: int,
) -> None:
    """Read, count, and exit."""
    status = 1
    try:
        _set_bounds()
        path, end = folder / reader.file, time.monotonic() + seconds
        for number in numbers:
            if time.monotonic() > end:
                break
            changed = make(number)
            path.write_bytes(changed.content)
            began = time.process_time()
            shared[_BEGUN_CPU], shared[_BEGUN] = began, time.monotonic()
            outcome, said = ending(reader, folder, expected, changed)
            shared[_SLOWEST] = max(shared[_SLOWEST], time.process_time() - began)
            shared[_BEGUN] = 0
            shared[_COUNTS + OUTCOMES.index(outcome)] += 1
            if outcome in FAULTS:
                digest = hashlib.sha256(changed.content).hexdigest()[:16]
                fault = {"number": number, "outcome": outcome, "said": said, "sha256": digest}
                os.write(tell, (json.dumps(fault) + "\n").encode())
            shared[_NUMBER] = number + 1
        status = 0
    finally:
        os._exit(status)


def _set_bounds() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    # A crash is counted; traces, and what decoders print, would only stand between the lines of the parent.
    faulthandler.disable()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def ending(reader: Reader, folder: Path, expected: str, changed: Changed) -> tuple[str, str]:
    """How reading ends, and what it said."""
    try:
        if repr(reader.read(folder)) == expected:
            return "same", ""
    except L0PruneError as error:
        text = str(error)
        is_line = len(text) < _LONGEST_LINE and "\n" not in text
        return ("refused", text) if is_line else ("traceback", f"no single line: {text[:99]}")
    except MemoryError as error:
        return "memory", _place(error)
    except BaseException as error:
        return "traceback", _place(error)
    return ("other", "no error") if reader.sealed and not changed.resealed else ("changed", "")


def _place(error: BaseException) -> str:
    *_, last = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__}: {str(error)[:200]} ({Path(last.filename).name}:{last.lineno})"
