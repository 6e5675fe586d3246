"""Pre-train another teacher: a small HuBERT by masked prediction (Hsu et al. 2021) of Whisper's units.

    python benchmarks/teacher/pretrain_units.py --clips /tmp/l0prune-units.safetensors --run /tmp/l0prune-pretraining

A tenth of the clips of each real speaker and a tenth of the synthetic voices are held out: on them the masked loss, the
accuracy beside chance, and what closing each part of the network costs are measured; `RUN/teacher.json` keeps them. A
run that was stopped goes on where it was, at the last hundred of steps. `RUN/teacher.safetensors` is the encoder as
float16; `--teacher` takes it. The embedded teacher is still that of `pretrain.py`.
"""

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchaudio
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1]))

from l0bench.teacher import masked_prediction
from l0bench.teacher.closings import closing_costs
from l0bench.teacher.corpus import SAMPLE_RATE, Clip, load_clips, repeated
from l0bench.teacher.pretraining import HeldOut, Pretraining, Settings, held_out

from l0prune import write_atomic, write_json


def chances(clips: Sequence[Clip], classes: dict[str, int]) -> dict[str, dict[str, float]]:
    """The accuracy of guessing, for each source of units: at random, and always the most frequent one."""
    found = {}
    for name, count in classes.items():
        counts = torch.bincount(torch.cat([clip.units[name] for clip in clips]).long(), minlength=count)
        found[name] = {"uniform": 1 / count, "most_frequent": float(counts.max() / counts.sum())}
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True, help="file made by `make_units.py`")
    parser.add_argument("--run", type=Path, required=True, help="folder of the checkpoint and the results")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=5, help="crops a step")
    parser.add_argument("--frames", type=int, default=199, help="frames a crop, 50 a second")
    parser.add_argument("--masked", type=float, default=0.8, help="spans times their length by the frames")
    parser.add_argument(
        "--repeated", type=float, default=0.5, help="share of crops that hold their speech twice, through two channels"
    )
    parser.add_argument("--begin", type=Path, help="checkpoint of another run, whose weights are the first")
    parser.add_argument("--learning-rate", type=float, default=7e-4)
    parser.add_argument("--every", type=int, default=250, help="steps between evaluations")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    settings = Settings(**{field.name: getattr(given, field.name) for field in fields(Settings)})

    clips, about = load_clips(given.clips)
    sources: Any = about["sources"]
    classes = {name: source["classes"] for name, source in sources.items()}
    held = held_out(clips)
    unseen = [clip for clip, out in zip(clips, held, strict=True) if out]
    test = HeldOut(unseen, settings)
    torch.manual_seed(settings.seed)
    model = masked_prediction.MaskedPredictor(classes)
    if given.begin is not None:
        model.load_state_dict(torch.load(given.begin, weights_only=True)["model"])
    seen = [clip for clip, out in zip(clips, held, strict=True) if not out]
    run = Pretraining(model, seen, test, settings, given.run / "checkpoint.pt")
    run.run()

    twice = HeldOut(unseen, settings, repeated)
    held_out_speech = {"once": test, "twice": twice}
    closed = {name: closing_costs(model.encoder, partial(part.loss, model)) for name, part in held_out_speech.items()}
    for part in closed["once"]:
        print(f"{part:32} closed: loss", *(f"{100 * costs[part]:+6.1f} % ({name})" for name, costs in closed.items()))
    encoder = model.encoder.eval()
    weights = {name: value.half().contiguous() for name, value in encoder.state_dict().items()}
    config = json.dumps({**masked_prediction.ENCODER, "aux_num_out": None})
    metadata = {"format": "l0prune-speech-teacher", "config": config, "normalize_waveform": "false"}
    write_atomic(given.run / "teacher.safetensors", partial(save_file, weights, metadata=metadata))
    versions = {"torch": torch.__version__, "torchaudio": torchaudio.__version__, "python": platform.python_version()}
    result = {
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "minutes": round(sum(len(clip.samples) for clip in clips) / SAMPLE_RATE / 60, 1),
        "clips": len(clips),
        "speakers": len({clip.speaker for clip in clips}),
        "held_out_clips": len(unseen),
        "sources": sources,
        "chance": chances(unseen, classes),
        "settings": asdict(settings),
        "versions": versions,
        "curve": run.curve,
        "heard_twice": twice.measure(model),
        "closed": {name: {part: round(cost, 4) for part, cost in costs.items()} for name, costs in closed.items()},
    }
    write_json(given.run / "teacher.json", result)


if __name__ == "__main__":
    main()
