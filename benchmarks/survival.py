"""Killed, or out of disk, at each file-system call in turn: does it go on to the same bits?

    python benchmarks/survival.py                      # every call of every scenario
    python benchmarks/survival.py run resumed --every 10

A scenario is played once undisturbed, then once for each of its calls with a fault there: the process is killed in the
middle of the call, or the disk is full from then on. After each, no file under a final name may be half-written, what
ended by itself must have ended with one line and left nothing over, and going on must give the same weights, plan,
records and report. While a live run is read (by `report`, `verify` and `load`), readers come at each of its calls.
"""

import argparse
import json
import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from l0bench.provenance import where
from l0bench.survival.scenarios import Materials
from l0bench.survival.sweep import FAULTS, Sweep

from l0prune.support import write_json, write_text

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Sweep scenarios, print and write what came of them."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("scenarios", nargs="*", help="all by default")
    arguments.add_argument("--every", type=int, default=1, help="only each N-th call")
    arguments.add_argument("--out", type=Path, default=RESULTS / "survival.json")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    # Those of other scenarios stay.
    rows = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    try:
        scenarios, sweep = Materials(folder).scenarios(), Sweep(folder)
        for name in options.scenarios or scenarios:
            scenario, began = scenarios[name], time.monotonic()
            calls, end = sweep.undisturbed(scenario)
            for fault in ("look",) if scenario.look else FAULTS:
                outcome = sweep.swept(scenario, fault, calls, end, range(0, len(calls), options.every))
                rows = [row for row in rows if (row["scenario"], row["fault"]) != (name, fault)]
                rows.append({"scenario": name, "fault": fault, **asdict(outcome)})
                write_json(options.out, {"rows": rows, "where": where(torch.device("cpu"))})
                write_text(options.out.with_suffix(".md"), _table(rows))
                print(f"{name}, {fault}: {outcome.tried} of {outcome.calls} calls, {time.monotonic() - began:.0f} s")
                print(*outcome.wrong, sep="\n", end="\n" if outcome.wrong else "", flush=True)
    finally:
        shutil.rmtree(folder)


def _table(rows: list[dict[str, Any]]) -> str:
    lines = ["| scenario | fault | calls | tried | ended by it | wrong |", "|---|---|---|---|---|---|"]
    for row in rows:
        cells = [row[key] for key in ("scenario", "fault", "calls", "tried", "ended")]
        lines.append(f"| {' | '.join(map(str, [*cells, len(row['wrong'])]))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
