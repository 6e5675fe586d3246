"""What pruning to a time gains over pruning to a size: the embedded teacher, one schedule, three seeds.

    python benchmarks/prune_to_time.py           # about half an hour on one core

For each seed a student with a quarter of the parameters, and one pruned for latency until it is as fast as that, as
measured; which has the lower distillation loss on held-out speech? And how fast is a student of `target_speedup = 3`?
Everything runs on one thread. Finished runs in `--runs` are not made again.
"""

import argparse
import json
import subprocess
from pathlib import Path
from typing import Any

import torch
from l0prune_speech.deploy import for_inference
from l0prune_speech.deploy import load as make_load
from l0prune_speech.formats import load_teacher

from l0prune import Contender, compress, load, measure

ROOT = Path(__file__).parents[1]
SEEDS = (0, 1, 2)
SECONDS = 10
SCHEDULE = {
    "joint": {"steps": 120, "warmup_steps": 12},
    "further": {"steps": 60, "warmup_steps": 6},
    "controller": {"warmup_steps": 45},
}


def compressed(folder: Path, **settings: Any) -> dict[str, Any]:
    """The report of a run with some settings, made now or before."""
    report = folder / "report.json"
    if not report.exists():
        compress("speech", recipe="quick", settings={**SCHEDULE, **settings}, out=folder)
    return json.loads(report.read_text(encoding="utf-8"))


def speedups(folders: list[Path], seconds: float) -> dict[str, Any]:
    """How many times faster than the teacher the students of some runs are, by name."""
    networks = {"teacher": load_teacher("embedded").encoder} | {folder.name: load(folder) for folder in folders}
    contenders = {name: Contender(module=for_inference(net), counted=net) for name, net in networks.items()}
    return measure(contenders, [make_load(SECONDS, 1)], seconds=seconds).to_json()


def main() -> None:
    """Make the runs, measure the students beside each other, print a table and write the results."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "prune-to-time.json")
    arguments.add_argument("--runs", type=Path, default=ROOT / "runs" / "prune-to-time")
    arguments.add_argument("--seconds", type=float, default=60.0, help="of measuring all students at the end")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    reports: dict[str, dict[str, Any]] = {}
    for seed in SEEDS:
        small, fast = (f"{metric}-{seed}" for metric in ("params", "latency"))
        reports[small] = compressed(options.runs / small, seed=seed)
        reached = speedups([options.runs / small], 10.0)["rows"][1]["speedup"]["median"]
        reports[fast] = compressed(options.runs / fast, seed=seed, metric="latency", target_speedup=reached)
    reports["latency-3x"] = compressed(options.runs / "latency-3x", metric="latency", target_speedup=3.0)
    found = speedups([options.runs / name for name in reports], options.seconds)
    rows = {row["model"]: row for row in found["rows"]}
    print(f"{'student':12} {'parameters':>10} {'MACs':>13} {'times faster':>22} {'loss':>7}")
    for name, report in reports.items():
        facts, ratio = found["models"][name], rows[name]["speedup"]
        interval = f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
        loss = report["distill_loss_final"]
        print(f"{name:12} {facts['parameters']:10,} {facts['macs']:13,} {interval:>22} {loss:7.4f}")
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    kept = ("distill_loss_final", "target_sparsity", "speedup", "latency_model_error", "round_to", "seed")
    results = {
        "commit": commit.stdout.strip(),
        "threads": 1,
        "schedule": SCHEDULE,
        "runs": {name: {key: report[key] for key in kept} for name, report in reports.items()},
        "measured": found,
    }
    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
