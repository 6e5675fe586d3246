"""Where the time of a file goes, operator by operator, by onnxruntime's own profiler."""

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l0bench.int8.files import sessions

_KIND = "_kernel_time"


@dataclass(frozen=True)
class Share:
    """What one kind of operator takes of a run."""

    operator: str
    calls: int
    milliseconds: float


def profile(path: Path, feeds: Mapping[str, Any], *, threads: int, runs: int = 3, fused_norms: bool = True) -> Any:
    """Events of some runs after a first one.

    Args:
        path: The file.
        feeds: Inputs by name.
        threads: Of the CPU.
        runs: How many are counted.
        fused_norms: As for `sessions`.
    """
    with tempfile.TemporaryDirectory() as folder:
        session = sessions(path, threads, profiled=Path(folder) / "profile", fused_norms=fused_norms)
        for _ in range(runs + 1):
            session.run(["hidden_states"], dict(feeds))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    kernels = [e for e in events if e.get("cat") == "Node" and e["name"].endswith(_KIND)]
    # Each run has as many: the first, which gets memory, is left out.
    return kernels[len(kernels) // (runs + 1) :], runs


def shares_of(events: Any, runs: int) -> list[Share]:
    """Milliseconds of each kind of operator in one run, the largest first."""
    took: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    for event in events:
        name = event["args"]["op_name"]
        took[name] += event["dur"] / 1000 / runs
        calls[name] += 1
    found = [Share(name, round(calls[name] / runs), took[name]) for name in took]
    return sorted(found, key=lambda share: -share.milliseconds)
