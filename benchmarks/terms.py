"""What a step costs with each distillation term, against the published objective's step in the same run.

    python benchmarks/terms.py                       # HuBERT Base, random weights, 20 s of audio a step
    python benchmarks/terms.py --model small         # the size of the embedded teacher
    python benchmarks/terms.py --terms masked_units gram --cached

All steps are gated, as in the joint stage. Each objective is the published one with one term more; `masked_units alone`
has no other term. All are timed in turns in one process, so that drift of the machine cancels. The processor's time
is told beside the wall's: other work on the machine does not count in it. `--cached` takes what
the teacher says from a cache. Units and clusters are found before the clock starts.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from l0bench.gated_steps import WIDTHS, encoder_config, run_step
from l0bench.provenance import where
from l0prune_speech.distillation import (
    PUBLISHED,
    Distillation,
    TargetCache,
    TermSettings,
    all_terms,
    matched_layers,
)
from l0prune_speech.encoder import build_encoder, encoder_groups
from torch import Tensor

import l0prune
from l0prune import GatedModel, StageConfig
from l0prune.training import Stage

RESULTS = Path(__file__).parent / "results"
YARDSTICK = "published"


def objectives(names: list[str]) -> dict[str, Mapping[str, float]]:
    """Weights of what is timed, by name."""
    chosen: dict[str, Mapping[str, float]] = {YARDSTICK: PUBLISHED}
    chosen |= {name: {**PUBLISHED, name: 1.0} for name in names}
    if "masked_units" in names:
        chosen["masked_units alone"] = {"masked_units": 1.0}
    return chosen


def make_stage(model: str, weights: Mapping[str, float], device: torch.device, cache: Path | None) -> Stage:
    """A joint stage of one objective, whose units and clusters are known."""
    torch.manual_seed(0)
    config = encoder_config(model)
    teacher, student = build_encoder(config).eval().requires_grad_(False), build_encoder(config)
    objective = Distillation(
        student,
        teacher.to(device),
        layers=matched_layers(int(str(config["encoder_num_layers"]))),
        weights=weights,
        cache=TargetCache(cache, model, 10**10) if cache else None,
        settings=TermSettings(unit_count=100),
        survey=lambda: torch.randn(3, 1, 160_000, generator=torch.Generator().manual_seed(1)),
    ).to(device)
    objective.begin()
    gates = GatedModel(student, encoder_groups(student), target_sparsity=0.75)
    return Stage("joint", objective, StageConfig(steps=10**6, learning_rate=1e-5), precision="float32", gated=gates)


def endless(clips: int, seconds: float) -> Iterator[Tensor]:
    """The same batch again and again."""
    batch = torch.randn(clips, int(seconds / clips * 16_000), generator=torch.Generator().manual_seed(0))
    while True:
        yield batch


def timed(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a step of each objective."""
    device = l0prune.pick_device(arguments.device)
    chosen = objectives(arguments.terms)
    times: dict[str, list[float]] = {name: [] for name in chosen}
    processor: dict[str, list[float]] = {name: [] for name in chosen}
    with tempfile.TemporaryDirectory() as folder:
        stages = {
            name: make_stage(arguments.model, weights, device, Path(folder) if arguments.cached else None)
            for name, weights in chosen.items()
        }
        batches = endless(arguments.clips, arguments.seconds)
        for turn in range(arguments.rounds + 1):
            names = [*chosen][turn % len(chosen) :] + [*chosen][: turn % len(chosen)]
            for name in names:
                began = time.process_time()
                took = run_step(stages[name], batches)
                if turn:
                    times[name].append(took)
                    processor[name].append(time.process_time() - began)
    rows = {}
    print(f"{'objective':24} {'seconds':>8} {'ratio':>6} {'processor':>28}")
    for name, of in times.items():
        ratios = [one / other for one, other in zip(of, times[YARDSTICK], strict=True)]
        cpus = [one / other for one, other in zip(processor[name], processor[YARDSTICK], strict=True)]
        rows[name] = {
            "step_seconds": statistics.median(of),
            "ratio": statistics.median(ratios),
            "ratio_min_max": [min(ratios), max(ratios)],
            "processor_seconds": statistics.median(processor[name]),
            "processor_ratio": statistics.median(cpus),
            "processor_ratio_min_max": [min(cpus), max(cpus)],
        }
        low, high = rows[name]["ratio_min_max"]
        print(
            f"{name:24} {rows[name]['step_seconds']:8.3f} {rows[name]['ratio']:6.2f} ({low:.2f} to {high:.2f}) "
            f"{rows[name]['processor_ratio']:6.2f} ({min(cpus):.2f} to {max(cpus):.2f})"
        )
    return {
        "model": arguments.model,
        "audio_seconds_per_step": arguments.seconds,
        "clips_per_step": arguments.clips,
        "rounds": arguments.rounds,
        "cached_teacher": arguments.cached,
        "yardstick": YARDSTICK,
        "objectives": rows,
        **where(device),
    }


def main() -> None:
    """Command line entry."""
    known = [name for name, term in all_terms().items() if term.between != "logits" and name not in PUBLISHED]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--terms", nargs="+", choices=known, default=known)
    parser.add_argument("--model", choices=WIDTHS, default="base")
    parser.add_argument("--seconds", type=float, default=20.0, help="audio a step")
    parser.add_argument("--clips", type=int, default=4, help="clips a step")
    parser.add_argument("--rounds", type=int, default=5, help="counted steps of each objective, after one of warm-up")
    parser.add_argument("--cached", action="store_true", help="what the teacher says comes from a cache")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="a JSON file to write; by default one below benchmarks/results")
    arguments = parser.parse_args()
    gpu = "" if arguments.device == "cpu" else f"-{arguments.device}"
    out = arguments.out or RESULTS / f"terms-{arguments.model}{gpu}.json"
    out.write_text(json.dumps(timed(arguments), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
