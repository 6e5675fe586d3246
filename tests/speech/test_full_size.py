"""Encoders at full size, with random weights."""

from math import prod
from pathlib import Path

import pytest
import torch
import torchaudio
from l0prune_speech.formats.checkpoint import from_encoder, to_encoder
from l0prune_speech.formats.dphubert import from_dphubert, to_dphubert
from l0prune_speech.formats.huggingface import to_huggingface
from l0prune_speech.formats.pickled import read_pickled
from l0prune_speech.formats.torchaudio_names import from_torchaudio
from l0prune_speech.groups import encoder_groups
from l0prune_speech.modules import SpeechEncoder
from l0prune_speech.teachers import load_teacher
from torch import Tensor

import l0prune
from l0prune import GateConfig, GatedModel

SIZES = {
    "HUBERT_BASE": (94_370_944, 0.75),
    "WAVLM_BASE_PLUS": (94_381_168, 0.75),
    "HUBERT_LARGE": (315_434_112, 0.70),
}
LEAST = 1 - 0.0003


def make_bundled(name: str) -> SpeechEncoder:
    """The encoder of a torchaudio bundle, through the same path as its download takes, with random weights."""
    torch.manual_seed(0)
    bundle = getattr(torchaudio.pipelines, name)
    make = torchaudio.models.wavlm_model if name.startswith("WAVLM") else torchaudio.models.wav2vec2_model
    config = {**bundle._params, "normalize_waveform": bundle._normalize_waveform}
    return to_encoder(from_torchaudio(make(**bundle._params).state_dict(), config), name)


def states(encoder: SpeechEncoder) -> list[Tensor]:
    waveforms, lengths = torch.randn(2, 8_000, generator=torch.Generator().manual_seed(0)), torch.tensor([8_000, 6_000])
    with torch.no_grad():
        return encoder.hidden_states(waveforms, None, lengths)


@pytest.mark.parametrize("name", list(SIZES))
def test_accounting_target_and_round_trips(tmp_path: Path, name: str) -> None:
    total, target = SIZES[name]
    encoder = make_bundled(name)
    config = GateConfig(drop_rates={"ffn": 0.5})
    gated = GatedModel(encoder, encoder_groups(encoder), target_sparsity=target, config=config).eval()
    assert gated.size_model.total == total
    with torch.no_grad():
        gated.gates.log_alpha.copy_(2 * torch.randn_like(gated.gates.log_alpha))
    student, plan = gated.pruned()
    assert isinstance(student, SpeechEncoder)
    kept = sum(parameter.numel() for parameter in student.parameters())
    assert total * (1 - target) * LEAST <= kept <= total * (1 - target)
    expected = states(student)
    l0prune.save(student, plan, tmp_path / "run", plugin="speech", architecture=encoder.config)
    loaded = l0prune.load(tmp_path / "run")
    assert isinstance(loaded, SpeechEncoder)
    to_dphubert(from_encoder(student), tmp_path / "student.pth")
    content = read_pickled(tmp_path / "student.pth")
    # The published class holds the same, and one factor for each channel of the last convolution.
    channels = content["config"]["extractor_conv_layer_config"][-1][0]
    assert sum(prod(tensor.shape) for tensor in content["state_dict"].values()) == kept + channels
    exported = to_encoder(from_dphubert(content, "student.pth"), "student.pth")
    for again in (loaded, exported):
        assert all(torch.equal(one, other) for one, other in zip(expected, states(again), strict=True))


@pytest.mark.parametrize("name", ["HUBERT_BASE", "WAVLM_BASE_PLUS", "WAV2VEC2_BASE"])
def test_a_teacher_goes_out_and_comes_back_the_same(tmp_path: Path, name: str) -> None:
    teacher = make_bundled(name)
    expected, checkpoint = states(teacher), from_encoder(teacher)
    (tmp_path / "hf").mkdir()
    to_huggingface(checkpoint, tmp_path / "hf", "card")
    to_dphubert(checkpoint, tmp_path / "teacher.pth")
    for path in (tmp_path / "hf", tmp_path / "teacher.pth"):
        back = load_teacher(str(path)).encoder
        assert all(torch.equal(one, other) for one, other in zip(expected, states(back), strict=True))


def test_groups_fit_torchaudios_own_class(tmp_path: Path) -> None:
    encoder = torchaudio.models.hubert_base().eval()
    gated = GatedModel(encoder, encoder_groups(encoder), target_sparsity=0.75).eval()
    with torch.no_grad():
        gated.gates.log_alpha.copy_(2 * torch.randn_like(gated.gates.log_alpha))
    pruned, plan = gated.pruned()
    waveforms, lengths = torch.randn(2, 8_000), torch.tensor([8_000, 6_000])
    with torch.no_grad():
        expected = pruned.extract_features(waveforms, lengths)
        l0prune.save(pruned, plan, tmp_path)
        loaded = l0prune.load(tmp_path, torchaudio.models.hubert_base)
        got = loaded.extract_features(waveforms, lengths)  # type: ignore[operator]
    assert all(torch.equal(one, other) for one, other in zip(expected[0], got[0], strict=True))
    assert torch.equal(expected[1], got[1])
