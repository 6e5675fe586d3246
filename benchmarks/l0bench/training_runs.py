"""Whole runs of the quick recipe, with compaction and without, and what they tell of longer schedules.

`training.py runs` and `training.py project` call them.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import l0prune
from l0bench.provenance import where

RESULTS = Path(__file__).parents[1] / "results"
SPARSITY = 0.75
"""Of the compacted steps that `project` reads."""
RHYTHMS: dict[str, dict[str, Any]] = {
    "off": {"enabled": False},
    "on": {},
    "eager": {"every_steps": 2, "patience": 1, "closed_below": 0.3, "least_share": 0.01},
    "lazy": {"every_steps": 40, "patience": 3, "closed_below": 0.02, "least_share": 0.1},
}
"""Settings of compaction beside the defaults ("on")."""
OTHER_SEEDS = 3
"""Seeds of the rhythms other than "on" and "off"."""


class Clock(l0prune.Observer):
    """Processor time of each stage: what other work on the machine takes does not count."""

    def __init__(self) -> None:
        self.begun: dict[str, float] = {}

    def stage_begins(self, name: str, steps: int, done: int) -> None:
        """Note when a stage begins."""
        self.begun[name] = time.process_time()

    def finished(self, report: l0prune.CompressionReport) -> None:
        """Note when all is done."""
        self.begun["end"] = time.process_time()

    def stages(self) -> dict[str, float]:
        """Processor seconds of each stage."""
        return {
            "joint": self.begun["further"] - self.begun["joint"],
            "further": self.begun["end"] - self.begun["further"],
        }


def runs(arguments: argparse.Namespace) -> dict[str, Any]:
    """Whole runs of the quick recipe with compaction, without, and in other rhythms, seed by seed."""
    rows = []
    for seed in range(arguments.seeds):
        names = [*RHYTHMS] if seed < OTHER_SEEDS else ["off", "on"]
        turn = seed % len(names)
        row = {name: whole_run(seed, RHYTHMS[name]) for name in names[turn:] + names[:turn]}
        for name, run in row.items():
            if name != "on":
                del run["curve"]
            walls, cpus = (
                {stage: seconds / row["off"][kind][stage] for stage, seconds in run[kind].items()}
                for kind in ("stage_seconds", "stage_cpu_seconds")
            )
            print(
                f"seed {seed} {name:5}: joint stage in {walls['joint']:.2f} of the time ({cpus['joint']:.2f} of the "
                f"processor's), all in {run['wall_seconds'] / row['off']['wall_seconds']:.2f}; "
                f"loss {run['loss']:.4f}; {run['params_after']:,}; cuts at {[c['step'] for c in run['compactions']]}",
                flush=True,
            )
        rows.append(row)
    return {"recipe": "quick", "rhythms": RHYTHMS, "seeds": rows, **where(l0prune.pick_device("auto"))}


def whole_run(seed: int, compaction: dict[str, Any]) -> dict[str, Any]:
    """One run of the quick recipe: its times, its losses and the curve of its size."""
    settings = {"seed": seed, "compaction": compaction, "speech": {"workers": 0}}
    with tempfile.TemporaryDirectory() as folder:
        begun, clock = time.perf_counter(), Clock()
        report = l0prune.compress("speech", recipe="quick", settings=settings, out=Path(folder) / "run", observer=clock)
        lines = (Path(folder) / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    curve = [(row["step"] / row["steps"], row["parameters"]) for row in map(json.loads, lines)][:: len(lines) // 60]
    return {
        "wall_seconds": time.perf_counter() - begun,
        "stage_seconds": report.stage_seconds,
        "stage_cpu_seconds": clock.stages(),
        "params_after": report.params_after,
        "loss": report.distill_loss_final,
        "loss_after_cut": report.distill_loss_after_removal,
        "compactions": [{"step": cut["step"], "parameters": cut["parameters"]} for cut in report.compactions],
        "curve": curve,
        "params_before": report.params_before,
    }


def project(arguments: argparse.Namespace) -> dict[str, Any]:
    """Cost of the paper's schedule against dense distillation for as many steps.

    What is left of the network over the joint stage is taken from the measured runs, from the end of the warm-up on; a
    step's cost is taken as linear in the parameters left, between those measured.
    """
    measured = json.loads((RESULTS / f"training-steps-{arguments.model}.json").read_text(encoding="utf-8"))
    seeds = json.loads((RESULTS / "training-runs.json").read_text(encoding="utf-8"))["seeds"]
    quick = l0prune.resolve(l0prune.get_plugin("speech"), recipe="quick")
    paper = l0prune.resolve(l0prune.get_plugin("speech"), recipe="dphubert-base")
    begins = quick.controller.warmup_steps / quick.joint.steps
    places = np.linspace(0, 1, 101)
    left = np.mean([curve_of(seed["on"], begins, places) for seed in seeds], axis=0)
    warm = paper.controller.warmup_steps / paper.joint.steps
    results = {}
    for precision in ("float32", "bfloat16"):
        names = [f"{kind}, {precision}" for kind in ("dense", "gated", "gated and compacted")]
        if names[0] not in measured["variants"]:
            continue
        dense, full, small = (measured["variants"][name]["ratio"] for name in names)
        cost = small + (full - small) * np.clip((left - (1 - SPARSITY)) / SPARSITY, 0, 1)
        joint = warm * full + (1 - warm) * float(cost.mean())
        steps_of = (paper.joint.steps, paper.further.steps)
        ours = joint * steps_of[0] + small * steps_of[1]
        results[precision] = {
            "joint": joint,
            "further": small,
            "whole_against_dense_float32": ours / sum(steps_of),
            "whole_against_dense_same_precision": ours / (sum(steps_of) * dense),
            "whole_against_gated_same_precision": ours / (full * steps_of[0] + small * steps_of[1]),
        }
    print(json.dumps(results, indent=1))
    return {"schedule": "dphubert-base", "left": left.tolist(), "cost_of_a_step": results, "model": arguments.model}


def curve_of(run: dict[str, Any], begins: float, places: np.ndarray) -> np.ndarray:
    """Share of the parameters left at `places` of the time from the warm-up to the end of the joint stage."""
    steps_done, parameters = np.array(run["curve"]).T
    last = int(np.argmax(steps_done)) + 1
    return np.interp(begins + (1 - begins) * places, steps_done[:last], parameters[:last]) / run["params_before"]
