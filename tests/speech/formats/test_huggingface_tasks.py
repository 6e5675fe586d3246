"""Exports for transformers, fine-tuned: each class for a task takes a step, is saved, and is the same when opened."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from l0prune_speech.encoder.modules import SpeechEncoder
from l0prune_speech.formats.checkpoint import from_encoder, to_encoder
from l0prune_speech.formats.huggingface import from_huggingface, to_huggingface
from torch import Tensor

Make = Callable[..., SpeechEncoder]
EMPTIED = ("0.attention", "2.attention", "1.feed_forward")
TASKS: dict[str, dict[str, Any]] = {
    "AutoModelForCTC": {"vocab_size": 11},
    "AutoModelForAudioClassification": {"num_labels": 4, "classifier_proj_size": 8},
    "AutoModelForAudioFrameClassification": {"num_labels": 3},
    "AutoModelForAudioXVector": {"num_labels": 3, "tdnn_dim": [8] * 5, "xvector_output_dim": 8},
}


def labels(auto: str, frames: int) -> Tensor:
    if auto == "AutoModelForCTC":
        return torch.tensor([[1, 2], [3, -100]])
    if auto == "AutoModelForAudioFrameClassification":
        return torch.nn.functional.one_hot(torch.arange(2 * frames).view(2, frames) % 3, 3)
    return torch.tensor([0, 2])


@pytest.mark.parametrize("kind", ["hubert-base", "wav2vec2-large", "wavlm-base"])
@pytest.mark.parametrize("auto", list(TASKS))
@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")
def test_a_student_is_fine_tuned(make_student: Make, tmp_path: Path, modules_cache: Path, kind: str, auto: str) -> None:
    if kind.startswith("hubert") and auto in list(TASKS)[2:]:
        pytest.skip("transformers has no such class")
    student, folder = make_student(kind, EMPTIED), tmp_path / "student"
    folder.mkdir()
    to_huggingface(from_encoder(student), folder, "card")
    choose = getattr(transformers, auto)
    model = choose.from_pretrained(folder, trust_remote_code=True, layerdrop=0.0, **TASKS[auto])
    assert type(model).__name__.startswith("Pruned")
    # What is new is the head alone.
    inner = getattr(model, model.base_model_prefix)
    assert sum(p.numel() for p in inner.parameters()) == sum(p.numel() for p in student.parameters())
    waveforms = torch.randn(2, 12_000)
    with torch.no_grad():
        expected = student.eval()(waveforms)[0] if not student.normalize_waveform else None
        got = inner.eval()(waveforms).last_hidden_state
    if expected is not None:
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=1e-4), []
    for _ in range(2):
        loss = model.eval()(waveforms, labels=labels(auto, got.shape[1])).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    assert np.isfinite(losses).all()
    # The small heads for speakers and frames are too rough for a step to tell.
    assert losses[1] < losses[0] or auto not in list(TASKS)[:2]
    gradient = inner.encoder.layers[2].feed_forward.output_dense.weight.grad
    assert gradient is not None
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0

    model.save_pretrained(tmp_path / "tuned")
    again = choose.from_pretrained(tmp_path / "tuned", trust_remote_code=True).eval()
    with torch.no_grad():
        assert torch.equal(model(waveforms).logits, again(waveforms).logits)
    # Its encoder is a teacher again, pruned as it was.
    checkpoint = from_huggingface(tmp_path / "tuned")
    back = to_encoder(checkpoint, tmp_path)
    assert "left out what is not the encoder" in checkpoint.notes[0]
    assert sum(p.numel() for p in back.parameters()) == sum(p.numel() for p in student.parameters())


@pytest.mark.parametrize("pruned", [True, False], ids=["student", "dense"])
def test_the_pipeline_for_features_takes_audio(
    make_student: Make, make_dense: Make, tmp_path: Path, modules_cache: Path, pruned: bool
) -> None:
    encoder, folder = (make_student if pruned else make_dense)("hubert-base"), tmp_path / "network"
    folder.mkdir()
    to_huggingface(from_encoder(encoder), folder, "card")
    features = transformers.pipeline("feature-extraction", model=str(folder), trust_remote_code=True)
    clip = np.random.default_rng(0).standard_normal(8_000).astype(np.float32)
    with torch.no_grad():
        expected = encoder(torch.from_numpy(clip)[None])[0]
    got = features(clip, return_tensors=True)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    (listed,) = features([{"array": clip, "sampling_rate": 16_000}])
    torch.testing.assert_close(torch.tensor(listed), expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="sampling rate"):
        features({"array": clip, "sampling_rate": 8_000})
