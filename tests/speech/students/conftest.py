"""A comparison of students of a teacher that trains in no time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from l0bench.students.entries import all_entries
from l0bench.students.making import Comparison
from l0bench.students.thinning import Thinned
from l0prune_speech.encoder.modules import SpeechEncoder
from l0prune_speech.formats.checkpoint import from_encoder
from l0prune_speech.formats.dphubert import to_dphubert
from l0prune_speech.options import SpeechOptions

import l0prune
from l0prune import RunConfig, Task

Make = Callable[..., SpeechEncoder]


@pytest.fixture
def layout() -> dict[str, Any]:
    """Of the teacher, over `make_encoder`'s."""
    return {
        "extractor_conv_layer_config": [(16, 10, 5), (16, 4, 4), (16, 4, 4), (16, 4, 4)],
        "encoder_embed_dim": 32,
        "encoder_num_heads": 4,
        "encoder_ff_interm_features": 96,
        "encoder_pos_conv_kernel": 8,
    }


@pytest.fixture
def comparison(make_encoder: Make, layout: dict[str, Any], tmp_path: Path) -> Comparison:
    to_dphubert(from_encoder(make_encoder(**layout)), tmp_path / "teacher.pth")
    (tmp_path / "clips").mkdir()
    for number in range(12):
        noise = np.random.default_rng(number).normal(size=33_000 + 500 * number)
        soundfile.write(tmp_path / f"clips/{number:02}.wav", 0.1 * noise, 16_000)
    speech = {"teacher": str(tmp_path / "teacher.pth"), "data": [str(tmp_path / "clips")]}
    settings = {
        "precision": "float32",
        "joint": {"steps": 4, "warmup_steps": 1},
        "further": {"steps": 2, "warmup_steps": 1},
        "controller": {"warmup_steps": 2},
        "speech": {**speech, "batch_seconds": 5.0, "evaluation_seconds": 5.0, "workers": 0},
    }
    return Comparison(folder=tmp_path / "students", settings=settings)


@pytest.fixture
def prepared() -> Callable[..., tuple[Task, RunConfig]]:
    """Task and settings of an entry of a comparison: prepared(comparison, "thin")."""

    def prepare(comparison: Comparison, entry: str = "full") -> tuple[Task, RunConfig]:
        found = all_entries(comparison.config())[entry]
        config = comparison.config(found, seed=0)
        plugin = Thinned(l0prune.get_plugin("speech"), found.data_every)
        return plugin.prepare(l0prune.build(SpeechOptions, config.options), config), config

    return prepare
