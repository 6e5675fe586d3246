"""What gating costs: a gated distillation step against a dense one, in one run.

    python benchmarks/gating.py                      # HuBERT Base, random weights, 20 s of audio a step
    python benchmarks/gating.py --model small        # the size of the embedded teacher

Both steps hold teacher and student forward, backward and optimizer; they alternate, so that drift of the machine
cancels. Memory is what autograd saves for the backward pass, which is exact: gating may save weights, no activations,
so its surplus must not grow with the audio.
"""

import argparse
import json
import platform
import statistics
from pathlib import Path

import torch
from l0bench.gated_steps import WIDTHS, encoder_config, run_step
from l0prune_speech.distillation import Distillation, matched_layers
from l0prune_speech.encoder import build_encoder, encoder_groups
from torch import Tensor

from l0prune import GatedModel, StageConfig
from l0prune.training import Stage

ROOT = Path(__file__).parents[1]


def make_stage(config: dict[str, object], *, gated: bool, precision: str) -> Stage:
    """A joint stage, with gates or without."""
    torch.manual_seed(0)
    teacher, student = build_encoder(config).eval().requires_grad_(False), build_encoder(config)
    layers = matched_layers(int(str(config["encoder_num_layers"])))
    objective = Distillation(student, teacher, layers=layers)
    gates = GatedModel(student, encoder_groups(student), target_sparsity=0.75) if gated else None
    return Stage("joint", objective, StageConfig(steps=10**6, learning_rate=1e-5), precision=precision, gated=gates)


def saved_bytes(stage: Stage, seconds: float, rate: int = 16_000) -> int:
    """Bytes that autograd saves in a forward pass, each storage once."""
    storages: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(0)
    stage.objective.train()
    if stage.gated is not None:
        stage.gated.gates.sample()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), stage.autocast:
        losses = stage.objective(torch.randn(1, int(seconds * rate)))
    del losses
    return sum(storages.values())


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=WIDTHS, default="base")
    parser.add_argument("--seconds", type=float, default=20.0, help="audio a step")
    parser.add_argument("--clips", type=int, default=2, help="clips a step")
    parser.add_argument("--pairs", type=int, default=7, help="counted pairs of steps, after one of warm-up")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()

    config = encoder_config(arguments.model)
    stages = {
        name: make_stage(config, gated=name == "gated", precision=arguments.precision) for name in ("dense", "gated")
    }
    samples = int(arguments.seconds / arguments.clips * 16_000)
    batches = iter(lambda: torch.randn(arguments.clips, samples), None)
    times: dict[str, list[float]] = {"dense": [], "gated": []}
    for pair in range(arguments.pairs + 1):
        # The order alternates too: whoever comes second finds warmer caches.
        for name in ("dense", "gated") if pair % 2 else ("gated", "dense"):
            seconds = run_step(stages[name], batches)
            if pair:
                times[name].append(seconds)
    ratios = [gated / dense for dense, gated in zip(times["dense"], times["gated"], strict=True)]
    memory = {
        f"{length:g} s": {name: saved_bytes(stage, length) for name, stage in stages.items()} for length in (2.0, 8.0)
    }
    surplus = [row["gated"] - row["dense"] for row in memory.values()]
    result = {
        "model": arguments.model,
        "audio_seconds_per_step": arguments.seconds,
        "precision": arguments.precision,
        "dense_step_seconds_median": statistics.median(times["dense"]),
        "gated_step_seconds_median": statistics.median(times["gated"]),
        "ratio_median": statistics.median(ratios),
        "ratio_min_max": [min(ratios), max(ratios)],
        "saved_bytes": memory,
        "surplus_bytes_per_second_of_audio": (surplus[1] - surplus[0]) / 6,
        "surplus_bytes": surplus[0],
        "weight_bytes": sum(p.numel() * p.element_size() for p in stages["dense"].objective.student.parameters()),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }
    out = arguments.out or ROOT / f"benchmarks/results/gating-{arguments.model}-{arguments.precision}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
