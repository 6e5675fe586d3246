"""Runs of the speech plugin of a second: a tiny encoder, and noise for words."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from l0prune_speech.encoder import build_encoder
from safetensors.torch import save_file

import l0prune
from l0bench.fuzzing.samples import TEACHER

_RATE, _CLIP_SAMPLES = 16_000, 8_000
_CONVOLUTIONS = [[4, 10, 5], *[[4, 3, 2]] * 4, *[[4, 2, 2]] * 2]
"""50 frames a second."""


def make(folder: Path) -> None:
    """Make the teacher and labelled clips: two words of four speakers, two of whom are tested."""
    clips = folder / "clips"
    clips.mkdir(parents=True)
    config = {**TEACHER, "extractor_conv_layer_config": _CONVOLUTIONS}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tensors = {name: tensor.contiguous() for name, tensor in build_encoder(config).state_dict().items()}
    metadata = {"format": "l0prune-speech-teacher", "config": json.dumps(config), "normalize_waveform": "false"}
    save_file(tensors, folder / "teacher.safetensors", metadata=metadata)
    noise, rows = np.random.default_rng(0), []
    for speaker, split in (("a", "train"), ("b", "train"), ("c", "unseen"), ("d", "unseen")):
        for keyword in ("yes", "no"):
            name = f"{speaker}-{keyword}.wav"
            soundfile.write(clips / name, 0.1 * noise.standard_normal(_CLIP_SAMPLES), _RATE)
            rows.append({"file": name, "split": split, "speaker": speaker, "phonemes": "a b", "keyword": keyword})
    (clips / "manifest.json").write_text(json.dumps({"format": "l0prune-labelled-speech", "clips": rows}))


def settings(teacher: str, clips: Path) -> dict[str, Any]:
    """Of a run of six steps.

    Args:
        teacher: The checkpoint.
        clips: The folder of sounds.
    """
    speech = {"teacher": teacher, "data": [str(clips)], "workers": 0, "min_seconds": 0.25, "max_seconds": 0.5}
    return {
        "target_sparsity": 0.3,
        "precision": "float32",
        "device": "cpu",
        "log_every": 2,
        "checkpoint_minutes": 0.0,
        "joint": {"steps": 4, "micro_batches": 1},
        "further": {"steps": 2, "micro_batches": 1},
        "controller": {"warmup_steps": 1},
        "speech": {**speech, "batch_seconds": 1.0, "evaluation_seconds": 1.0},
    }


def begin(folder: Path, chosen: dict[str, Any], *, resume: bool = False) -> None:
    """Make a run in `folder`, or go on with it."""
    l0prune.compress("speech", settings=chosen, out=folder, resume=resume, observer=l0prune.Observer())


def go_on(folder: Path, chosen: dict[str, Any]) -> None:
    """Bring what is there to its end."""
    if not (folder / "report.json").exists():
        begin(folder, chosen, resume=(folder / "config.toml").exists())
