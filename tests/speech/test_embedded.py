"""What ships with the plugin: speech with known text and voices, and a teacher that was really pre-trained."""

import json
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from l0prune_speech.data.audio import SAMPLE_RATE, find_clips, read
from l0prune_speech.formats.teachers import load_teacher

from l0prune import ConfigError

ASSETS = Path(str(files("l0prune_speech") / "assets"))


def test_speech_is_short_varied_and_labelled() -> None:
    manifest = json.loads((ASSETS / "speech/manifest.json").read_text())
    found = find_clips([ASSETS / "speech"], min_seconds=2.0)
    assert not found.skipped
    assert {clip.path.name for clip in found.clips} == {entry["file"] for entry in manifest}
    assert {clip.sample_rate for clip in found.clips} == {SAMPLE_RATE}
    assert 5 <= found.seconds / 60 <= 10
    assert len({json.dumps(entry["voice"]) for entry in manifest}) >= 24
    assert len({entry["voice"]["variant"] for entry in manifest}) >= 24
    assert len({entry["text"] for entry in manifest}) == len(manifest)
    assert sum(path.stat().st_size for path in (ASSETS / "speech").iterdir()) < 8 * 2**20


def test_teacher_is_a_small_hubert() -> None:
    encoder = load_teacher("embedded").encoder
    assert 4.5e6 < sum(parameter.numel() for parameter in encoder.parameters()) < 6e6
    assert len(encoder.feature_extractor.conv_layers) == 7
    assert len(encoder.encoder.transformer.layers) == 6
    assert not encoder.training


@torch.no_grad()
def test_teacher_hears_words_rather_than_noise() -> None:
    """Neighbouring frames of speech are told apart by what is said: two takes of one sentence's start agree more with
    themselves, shifted in time by whole frames, than with another sentence."""
    encoder = load_teacher("embedded").encoder
    clips = find_clips([ASSETS / "speech"], min_seconds=3.0).clips[:8]
    agreements, disagreements = [], []
    for one, other in zip(clips[::2], clips[1::2], strict=True):
        wave = read(one, duration_seconds=3.0)
        shift = 25 * 320
        whole = encoder.hidden_states(wave[None])[-1][0, 25:]
        later = encoder.hidden_states(wave[None, shift:])[-1][0]
        foreign = encoder.hidden_states(read(other, duration_seconds=3.0)[None])[-1][0]
        frames = min(len(whole), len(later), len(foreign))
        agreements.append(torch.cosine_similarity(whole[:frames], later[:frames]).mean())
        disagreements.append(torch.cosine_similarity(whole[:frames], foreign[:frames]).mean())
    assert torch.stack(agreements).mean() > torch.stack(disagreements).mean() + 0.2


@pytest.mark.parametrize("name", ["HUBERT_BASF", "embeded"])
def test_unknown_teacher_is_refused_with_the_nearest_name(name: str) -> None:

    with pytest.raises(ConfigError, match=r"HUBERT_BASE|embedded"):
        load_teacher(name)
