"""Killed, or out of disk, at each file-system call in turn: does it go on to the same bits?

    python benchmarks/survival.py                      # every call of every scenario
    python benchmarks/survival.py run resumed --every 10

A scenario is played once undisturbed, then once for each of its calls with a fault there: the process is killed in
the middle of the call, or the disk is full from then on. Each is a process forked from one that has imported all; its
calls are first compared with those of a process that is started. After each fault, no file under a final name may be
half-written, what ended by itself must have ended with one line and left nothing over, and going on must give the
same weights, plan, records and report. A live run is read at each of its calls too, by a process of its own: by
`report`, `verify`, `load`, `evaluate` and `export`. It then goes on ("look"), is killed, or finds the disk full, and
is read again.
"""

import argparse
import json
import shutil
import subprocess
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
    arguments.add_argument("--faults", nargs="+", choices=("look", *FAULTS), default=("look", *FAULTS))
    arguments.add_argument(
        "--continue", action="store_true", dest="go_on", help="skip what was tried at every call by the same code"
    )
    arguments.add_argument("--out", type=Path, default=RESULTS / "survival.json")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    # Those of other scenarios stay.
    rows = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    try:
        scenarios, sweep = Materials(folder).scenarios(), Sweep(folder)
        for name in options.scenarios or scenarios:
            scenario = scenarios[name]
            faults = [fault for fault in options.faults if fault in FAULTS or scenario.look]
            if options.go_on:
                faults = [fault for fault in faults if not _is_whole(rows, name, fault)]
            if not faults:
                continue
            calls, end = sweep.undisturbed(scenario)
            if sweep.fresh_calls(scenario, name, folder) != calls:
                raise SystemExit(f"{name}: a forked process makes other calls than one that is started")
            for fault in faults:
                began = time.monotonic()
                outcome = sweep.swept(scenario, fault, calls, end, range(0, len(calls), options.every))
                rows = [row for row in rows if (row["scenario"], row["fault"]) != (name, fault)]
                measured = where(torch.device("cpu"))
                row = {"scenario": name, "fault": fault, **asdict(outcome), "commit": measured["commit"]}
                rows = sorted([*rows, row], key=lambda row: list(scenarios).index(row["scenario"]))
                write_json(options.out, {"rows": rows, "where": measured})
                write_text(options.out.with_suffix(".md"), _table(rows))
                print(f"{name}, {fault}: {outcome.tried} of {outcome.calls} calls, {time.monotonic() - began:.0f} s")
                print(*outcome.wrong, sep="\n", end="\n" if outcome.wrong else "", flush=True)
    finally:
        shutil.rmtree(folder)


def _is_whole(rows: list[dict[str, Any]], name: str, fault: str) -> bool:
    """Whether a scenario was disturbed at every call, and held, by code that has not changed since."""
    for row in rows:
        if (row["scenario"], row["fault"]) == (name, fault) and row["tried"] == row["calls"] and not row["wrong"]:
            code = ["l0prune", "plugins/speech/l0prune_speech"]
            command = ["git", "diff", "--quiet", row.get("commit", ""), "--", *code]
            return subprocess.run(command, cwd=RESULTS.parents[1], check=False, capture_output=True).returncode == 0
    return False


def _table(rows: list[dict[str, Any]]) -> str:
    lines = ["| scenario | fault | calls | tried | ended by it | wrong |", "|---|---|---|---|---|---|"]
    for row in rows:
        cells = [row[key] for key in ("scenario", "fault", "calls", "tried", "ended")]
        lines.append(f"| {' | '.join(map(str, [*cells, len(row['wrong'])]))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
