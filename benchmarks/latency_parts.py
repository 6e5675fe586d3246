"""Where the time of HuBERT Base and of a student with a quarter of its parameters goes. Random weights, 10 s of audio.

    python benchmarks/latency_parts.py           # about a minute on two cores

Both run as they are deployed, in turns; the student also with its positional convolution as a convolution, which shows
what that costs. For each part: times, multiply-accumulates, and how many times fewer of each the student takes.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from l0bench.hubert_base import BASE, SECONDS, make_student, unit_costs
from l0prune_speech.deploy import for_inference
from l0prune_speech.encoder import SpeechEncoder, build_encoder, encoder_groups
from l0prune_speech.formats import folded, from_encoder
from torch import Tensor, nn

from l0prune import parameter_size, relative_difference
from l0prune.measuring import freed_memory_kept, macs, processor
from l0prune.size.latency import clocks
from l0prune.support import versions

ROOT = Path(__file__).parents[1]
_WARMUP = 3


def part_of(name: str) -> str | None:
    """The part of the encoder that a module is, if it is one."""
    if name.startswith("feature_extractor.conv_layers.") and name.count(".") == 2:
        return "convolutions"
    if name.startswith("encoder.transformer.layers.") and name.count(".") == 4:
        return {"attention": "attention", "feed_forward": "feed-forward"}.get(name.rpartition(".")[2])
    whole = {"encoder.feature_projection": "projection", "encoder.transformer.pos_conv_embed": "positional convolution"}
    return whole.get(name)


def parts(model: nn.Module) -> dict[str, str]:
    """Module name -> part."""
    return {name: part for name, _ in model.named_modules() if (part := part_of(name))}


def macs_by_part(encoder: SpeechEncoder, waveforms: Tensor) -> dict[str, int]:
    """Multiply-accumulates of each part, and of all."""
    given: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}
    hooks = [
        encoder.get_submodule(name).register_forward_pre_hook(
            lambda _, args, kwargs, name=name: given.__setitem__(name, (args, kwargs)), with_kwargs=True
        )
        for name in parts(encoder)
    ]
    counts = defaultdict(int, {"all": macs(lambda: encoder(waveforms))})
    for hook in hooks:
        hook.remove()
    for name, part in parts(encoder).items():
        module, (args, kwargs) = encoder.get_submodule(name), given[name]
        counts[part] += macs(lambda module=module, args=args, kwargs=kwargs: module(*args, **kwargs))
    return dict(counts)


@freed_memory_kept()
@torch.inference_mode()
def milliseconds_by_part(
    models: dict[str, SpeechEncoder], waveforms: Tensor, rounds: int
) -> dict[str, dict[str, float]]:
    """Medians over rounds in which every model takes its turn."""
    taken: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in models}
    for number in range(_WARMUP + rounds):
        for name, model in models.items():
            blocks: dict[str, list[float]] = defaultdict(list)
            with clocks(model, list(parts(model)), blocks, torch.device("cpu")) as read:
                begun = read()
                model(waveforms)
                whole = read() - begun
            if number < _WARMUP:
                continue
            sums: dict[str, float] = defaultdict(float, {"all": whole})
            for block, part in parts(model).items():
                sums[part] += sum(blocks[block])
            sums["norms and all else"] = whole - sum(sums[part] for part in set(parts(model).values()))
            for part, seconds in sums.items():
                taken[name][part].append(1000 * seconds)
    return {name: {part: float(np.median(times)) for part, times in found.items()} for name, found in taken.items()}


def main() -> None:
    """Build both, measure, print a table and write the results."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "latency-parts.json")
    arguments.add_argument("--rounds", type=int, default=25)
    options = arguments.parse_args()
    torch.manual_seed(0)
    dense, waveforms = build_encoder(BASE).eval(), torch.randn(1, SECONDS * 16_000)
    groups = encoder_groups(dense)
    size = parameter_size(dense, groups)
    student = make_student(dense, groups, size, unit_costs(size, groups), 0.75)
    plain = folded(from_encoder(student))
    models = {"dense": for_inference(dense), "student": for_inference(student), "student, all convolved": plain}
    with torch.inference_mode():
        difference = relative_difference(plain(waveforms)[0], models["student"](waveforms)[0])
    counts = {"dense": macs_by_part(dense, waveforms), "student": macs_by_part(student, waveforms)}
    times = milliseconds_by_part(models, waveforms, options.rounds)
    print(f"{'part':24} {'dense ms':>9} {'student':>8} {'(conv)':>8} {'times faster':>13} {'MACs, times fewer':>18}")
    for part, took in times["dense"].items():
        left, convolved = times["student"][part], times["student, all convolved"][part]
        fewer = f"{counts['dense'][part] / counts['student'][part]:.2f}" if part in counts["dense"] else ""
        print(f"{part:24} {took:9.2f} {left:8.2f} {convolved:8.2f} {took / left:13.2f} {fewer:>18}")
    print(f"outputs of the student differ by {difference:.1e} (relative) from those with all convolved")
    results = {
        "processor": processor(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "versions": versions("torchaudio"),
        "milliseconds": times,
        "macs": counts,
        "relative_difference": difference,
    }
    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
