"""What a step of training costs as the network shrinks, against dense distillation in the same run.

    python benchmarks/training.py steps                  # HuBERT Base, random weights, 20 s of audio a step
    python benchmarks/training.py steps --model small    # the size of the embedded teacher
    python benchmarks/training.py runs                   # the quick recipe, compaction on, off and in other rhythms
    python benchmarks/training.py project                # from both, the cost of whole schedules

`steps` times teacher and student forward, backward and optimizer, all variants in turns in one process, so that drift
of the machine cancels; peak memory is that of a process of its own for each. `runs` compresses the embedded teacher;
all runs of a seed go one after the other, in rotating order. `project` takes the sparsity curve of those runs.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from l0bench.gated_steps import WIDTHS, encoder_config, run_step
from l0bench.provenance import where
from l0bench.training_runs import RESULTS, SPARSITY, project, runs
from l0prune_speech.distillation import Distillation, TargetCache, matched_layers
from l0prune_speech.encoder import build_encoder, encoder_groups
from torch import Tensor

import l0prune
from l0prune import GatedModel, StageConfig
from l0prune.measuring import has_fast_bfloat16, macs, peak_memory_bytes
from l0prune.training import Stage

VARIANTS = {
    "dense, float32": {"gated": False},
    "gated, float32": {},
    "gated and compacted, float32": {"compacted": True},
    "dense, bfloat16": {"gated": False, "precision": "bfloat16"},
    "gated, bfloat16": {"precision": "bfloat16"},
    "gated and compacted, bfloat16": {"compacted": True, "precision": "bfloat16"},
    "gated and compacted, bfloat16, cached teacher": {"compacted": True, "precision": "bfloat16", "cached": True},
}
YARDSTICK = "dense, float32"


def make_stage(
    model: str,
    device: torch.device,
    folder: Path,
    *,
    gated: bool = True,
    compacted: bool = False,
    precision: str = "float32",
    cached: bool = False,
) -> Stage:
    """A joint stage of one variant."""
    torch.manual_seed(0)
    config = encoder_config(model)
    teacher, student = build_encoder(config).eval().requires_grad_(False), build_encoder(config)
    layers = matched_layers(int(str(config["encoder_num_layers"])))
    cache = TargetCache(folder, model, 10**10) if cached else None
    objective = Distillation(student, teacher.to(device), layers=layers, cache=cache).to(device)
    gates = GatedModel(student, encoder_groups(student), target_sparsity=SPARSITY) if gated else None
    stage = Stage("joint", objective, StageConfig(steps=10**6, learning_rate=1e-5), precision=precision, gated=gates)
    if gates is not None and compacted:
        with torch.no_grad():
            # Importances that no group is favoured by: all shrink about alike.
            gates.gates.log_alpha.copy_(torch.randn(len(gates.here), generator=torch.Generator().manual_seed(0)))
        assert stage.controller is not None
        stage.controller.cut(gates.gates.select(), [stage.optimizer])
        stage.weights = stage.optimizer.param_groups[0]["params"]
        with torch.no_grad():
            gates.gates.log_alpha.fill_(3.0)
    return stage


def endless(clips: int, seconds: float) -> Iterator[Tensor]:
    """The same batch again and again: a cached teacher has seen it."""
    batch = torch.randn(clips, int(seconds / clips * 16_000), generator=torch.Generator().manual_seed(0))
    while True:
        yield batch


def variants(device: torch.device) -> dict[str, dict[str, Any]]:
    """Those that the hardware has."""
    return {
        name: settings
        for name, settings in VARIANTS.items()
        if settings.get("precision") != "bfloat16" or has_fast_bfloat16(device)
    }


def steps(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time and peak memory of a step of each variant."""
    device = l0prune.pick_device(arguments.device)
    chosen = variants(device)
    times: dict[str, list[float]] = {name: [] for name in chosen}
    counted: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        stages = {
            name: make_stage(arguments.model, device, Path(folder), **settings) for name, settings in chosen.items()
        }
        ten_seconds = torch.zeros(1, 160_000, device=device)
        for name, stage in stages.items():
            student: Any = stage.objective.student
            counted[name] = {
                "parameters": sum(p.numel() for p in student.parameters()),
                "macs": macs(lambda student=student: student.hidden_states(ten_seconds)),
            }
        batches = endless(arguments.clips, arguments.seconds)
        for turn in range(arguments.rounds + 1):
            names = [*chosen][turn % len(chosen) :] + [*chosen][: turn % len(chosen)]
            for name in names:
                took = run_step(stages[name], batches)
                if turn:
                    times[name].append(took)
    yardstick = times[YARDSTICK]
    rows = {}
    for name in chosen:
        ratios = [one / other for one, other in zip(times[name], yardstick, strict=True)]
        rows[name] = {
            **counted[name],
            "step_seconds": statistics.median(times[name]),
            "ratio": statistics.median(ratios),
            "ratio_min_max": [min(ratios), max(ratios)],
            "peak_memory_bytes": peak_of(name, arguments),
        }
    for row in rows.values():
        row["memory_ratio"] = row["peak_memory_bytes"] / rows[YARDSTICK]["peak_memory_bytes"]
    print(f"{'variant':48} {'parameters':>12} {'MACs':>6} {'seconds':>8} {'ratio':>18} {'memory':>8} {'ratio':>6}")
    for name, row in rows.items():
        share = row["macs"] / rows[YARDSTICK]["macs"]
        low, high = row["ratio_min_max"]
        print(
            f"{name:48} {row['parameters']:12,} {share:6.2f} {row['step_seconds']:8.3f} "
            f"{row['ratio']:5.2f} ({low:.2f} to {high:.2f}) {row['peak_memory_bytes'] / 1e9:5.2f} GB "
            f"{row['memory_ratio']:6.2f}"
        )
    return {
        "model": arguments.model,
        "audio_seconds_per_step": arguments.seconds,
        "clips_per_step": arguments.clips,
        "rounds": arguments.rounds,
        "yardstick": YARDSTICK,
        "variants": rows,
        **where(device),
    }


def peak_of(name: str, arguments: argparse.Namespace) -> int:
    """Peak memory of two steps of a variant, in a process of its own, beyond what importing takes."""
    command = [sys.executable, __file__, "memory", "--variant", name, "--model", arguments.model]
    command += ["--seconds", str(arguments.seconds), "--clips", str(arguments.clips), "--device", arguments.device]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def memory(arguments: argparse.Namespace) -> None:
    """Print the peak memory of one variant."""
    device = l0prune.pick_device(arguments.device)
    before = memory_peak(device, reset=True)
    with tempfile.TemporaryDirectory() as folder:
        stage = make_stage(arguments.model, device, Path(folder), **VARIANTS[arguments.variant])
        # Making the dense network takes less than training it.
        batches = endless(arguments.clips, arguments.seconds)
        for _ in range(2):
            run_step(stage, batches)
    print(memory_peak(device) - before)


def memory_peak(device: torch.device, *, reset: bool = False) -> int:
    """As `peak_memory_bytes`, without what getrusage takes over from the parent process."""
    status = Path("/proc/self/status")
    if device.type != "cpu" or not status.exists():
        return peak_memory_bytes(device)
    if reset:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
    return 1024 * int(lines["VmHWM"].split()[0])


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["steps", "runs", "project", "memory"])
    parser.add_argument("--model", choices=WIDTHS, default="base")
    parser.add_argument("--seconds", type=float, default=20.0, help="audio a step")
    parser.add_argument("--clips", type=int, default=2, help="clips a step")
    parser.add_argument("--rounds", type=int, default=5, help="counted steps of each variant, after one of warm-up")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--variant", default=YARDSTICK, help="for `memory`, which `steps` calls")
    arguments = parser.parse_args()
    if arguments.what == "memory":
        memory(arguments)
        return
    results = {"steps": steps, "runs": runs, "project": project}[arguments.what](arguments)
    gpu = "" if arguments.device == "cpu" else f"-{arguments.device}"
    name = {"steps": f"training-steps-{arguments.model}{gpu}"}.get(arguments.what, f"training-{arguments.what}")
    (RESULTS / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
