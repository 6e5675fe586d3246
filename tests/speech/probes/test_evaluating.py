"""Probes on sound that is easy to learn: right labels are learnt, shuffled ones give chance, and runs repeat."""

import itertools
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from l0prune_speech.data import Framing, find_clips
from l0prune_speech.encoder.modules import SpeechEncoder
from l0prune_speech.probes import clips, evaluating, phones
from l0prune_speech.probes.corpora.find import open_sets
from l0prune_speech.probes.features import (
    EncoderFrontend,
    Frontend,
    extract,
    open_frontend,
    with_random_weights,
)
from l0prune_speech.probes.labelled import segment
from torch import Tensor

from l0prune import ConfigError, DataError, Evaluation, EvaluationSettings, L0PruneError

FIFTY_A_SECOND = [(6, 10, 5)] + [(6, 3, 2)] * 4 + [(6, 2, 2)] * 2


def evaluated(models: list[str], settings: EvaluationSettings) -> Evaluation:
    return evaluating.evaluate_models(models, settings, lambda _text: None)


@pytest.fixture(scope="module")
def settings(labelled_sound: Path) -> EvaluationSettings:
    return EvaluationSettings(data=(str(labelled_sound),), device="cpu", seeds=(0, 1))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes that need not learn all there is."""
    for kind in (clips, phones):
        monkeypatch.setattr(kind, "_SCHEDULE", replace(kind._SCHEDULE, steps=30))


@pytest.fixture
def enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tones and hums are learnt in fewer steps than speech: all of it, and 98 of 100 phones."""
    for kind, steps in ((clips, 100), (phones, 250)):
        monkeypatch.setattr(kind, "_SCHEDULE", replace(kind._SCHEDULE, steps=steps))


@pytest.mark.usefixtures("enough")
def test_what_is_there_is_learnt(settings: EvaluationSettings) -> None:
    filterbanks = evaluated(["filterbanks"], settings)
    means = {score.task: score.mean for score in filterbanks.scores}
    assert means["keyword"] > 0.9
    assert means["speaker"] > 0.9
    assert means["phone"] < 0.15
    assert means["verification"] < 0.25
    assert all(len(score.values) == 2 for score in filterbanks.scores)
    assert all(score.facts["layer_weights"] == [1.0] for score in filterbanks.scores)


@pytest.mark.usefixtures("enough")
def test_shuffled_labels_give_chance(settings: EvaluationSettings) -> None:
    found = evaluated(["filterbanks"], replace(settings, shuffle_labels=True))
    means = {score.task: score.mean for score in found.scores}
    for task in ("keyword", "speaker", "verification"):
        assert means[task] == pytest.approx(found.tasks[task]["chance"], abs=0.2)
    # What is recognised by chance can be worse than nothing at all, an error rate of 1.
    assert means["phone"] > 0.8
    assert found.shuffled_labels


def test_phones_that_are_tested_and_never_trained_on_are_refused(
    settings: EvaluationSettings, changed_set: Callable[..., Path]
) -> None:
    def renamed(clips: list[dict[str, Any]]) -> None:
        for clip in clips:
            if clip["split"] == "unseen":
                clip["phonemes"] = clip["phonemes"].upper()

    asked = replace(settings, data=(str(changed_set(renamed)),), tasks=("phone",))
    refused(["filterbanks"], asked, "no phone is both trained on and tested: .*got A among others, expected a among")


@pytest.mark.usefixtures("short")
def test_the_number_of_trials_is_told(settings: EvaluationSettings) -> None:
    told: list[str] = []
    asked = replace(settings, tasks=("keyword", "verification"), seeds=(0,))
    found = evaluating.evaluate_models(["filterbanks"], asked, told.append)
    # All pairs of 24 clips by each of two speakers.
    same, different = 2 * 24 * 23 // 2, 24 * 24
    facts = found.tasks["verification"]
    assert (facts["same_speaker_trials"], facts["different_speaker_trials"]) == (same, different)
    assert f"{same} same speaker trials, {different} different speaker trials" in told[1]
    assert "same_speaker_trials" not in found.tasks["keyword"]
    assert "trials" not in told[0]


@pytest.mark.usefixtures("short")
def test_a_seed_repeats_wherever_and_in_whichever_order_the_clips_stand(
    settings: EvaluationSettings, changed_set: Callable[..., Path]
) -> None:
    folder = changed_set(lambda clips: clips.reverse())
    found = evaluated(["filterbanks"], replace(settings, data=(str(folder),)))
    assert found.scores == evaluated(["filterbanks"], settings).scores
    assert any(len(set(score.values)) > 1 for score in found.scores)


@pytest.fixture
def opened(make_encoder: Callable[..., SpeechEncoder], monkeypatch: pytest.MonkeyPatch) -> None:
    """Models by name: made:SEED, an encoder of 50 frames a second; slow, one of 6.25; wide, whose frames are longer."""

    def open_model(model: str, device: torch.device) -> Frontend:
        others = {"slow": FIFTY_A_SECOND + [(6, 2, 2)] * 3, "wide": [(6, 15, 5), *FIFTY_A_SECOND[1:]]}
        strides = others.get(model, FIFTY_A_SECOND)
        seed = int(model.partition(":")[2] or 0)
        return EncoderFrontend(make_encoder(seed, extractor_conv_layer_config=strides), device)

    monkeypatch.setattr(evaluating, "open_frontend", open_model)


@pytest.mark.usefixtures("opened", "short")
def test_layers_beside_those_of_a_teacher(settings: EvaluationSettings) -> None:
    asked = replace(settings, tasks=("keyword",), against="made:0", seeds=(0,))
    # The one that the others are held against is measured first, wherever it stands.
    found = evaluated(["made:1", "made:0"], asked)
    assert list(found.models) == ["made:1", "made:0"]
    assert [(layer.model, layer.layer, layer.teacher_layer) for layer in found.layers] == [
        ("made:1", layer, layer) for layer in range(4)
    ]
    assert all(0 <= layer.measures["cka"] < 0.99 for layer in found.layers)
    (score, _other) = found.scores
    assert len(score.facts["layer_weights"]) == 4
    assert sum(score.facts["layer_weights"]) == pytest.approx(1)


def refused(models: list[str], settings: EvaluationSettings, words: str) -> None:
    """Before a word is said, so that the error is all there is to read."""
    told: list[str] = []
    with pytest.raises(L0PruneError, match=words):
        evaluating.evaluate_models(models, settings, told.append)
    assert told == []


@pytest.mark.usefixtures("opened")
def test_models_of_other_frames(settings: EvaluationSettings) -> None:
    beside = replace(settings, tasks=("keyword",), against="made:0", seeds=(0,))
    refused(["made:0", "slow"], beside, r"frame rate differs from the teacher's: slow .got 6.25 .*expected 50")
    refused(["made:0", "wide"], beside, r"frames differ from the teacher's: wide .got 405 .*expected 400")
    alone = replace(settings, tasks=("phone",), seeds=(0,))
    refused(["slow"], alone, "too few frames for the phones: .*6.25 a second.*about 50 frames")
    refused(["made:0", "slow"], alone, "too few frames for the phones: .*6.25 a second.*about 50 frames")


@pytest.mark.parametrize("model", ["made:0", "slow", "wide", "filterbanks"])
@pytest.mark.usefixtures("opened")
def test_the_number_of_frames_is_known_beforehand(model: str) -> None:
    device = torch.device("cpu")
    frontend = open_frontend(model, device) if model == "filterbanks" else evaluating.open_frontend(model, device)
    shortest, step = frontend.framing.shortest_samples, frontend.framing.step_samples
    assert frontend.framing.frames(shortest - 1) == 0
    for samples in (shortest, shortest + step - 1, shortest + step, 16_000, 16_001):
        assert frontend(torch.randn(samples)).shape[1] == frontend.framing.frames(samples)


def test_the_length_of_a_segment_is_that_of_what_is_read(tmp_path: Path) -> None:
    for rate in (16_000, 44_100, 8_000):
        soundfile.write(tmp_path / f"{rate}.wav", torch.randn(rate // 2).numpy(), rate)
        (clip,) = find_clips([tmp_path / f"{rate}.wav"], min_seconds=0.0).clips
        for start, duration in itertools.product((0.0, 0.12345, 0.4), (None, 0.01, 0.09999)):
            part = segment(clip, start_seconds=start, duration_seconds=duration)
            assert part.samples == len(part.read())


def test_too_few_minutes_are_no_fault_of_the_data(
    settings: EvaluationSettings, changed_set: Callable[..., Path]
) -> None:
    asked = replace(settings, max_minutes=0.01)
    words = r"max_minutes is too small for the task: {} .got 0.01, .*raise --max-minutes"
    for task in ("keyword", "speaker", "phone", "verification"):
        refused(["filterbanks"], replace(asked, tasks=(task,)), words.format(task))

    def once(clips) -> None:
        clips[next(n for n, clip in enumerate(clips) if clip.get("keyword"))]["keyword"] = "rare"

    faulty = replace(asked, data=(str(changed_set(once)),), tasks=("keyword",))
    refused(["filterbanks"], faulty, "class with a single example: .*rare")


def test_a_single_clip_to_train_phones_on_is_refused(
    settings: EvaluationSettings, changed_set: Callable[..., Path]
) -> None:
    def single(clips) -> None:
        sentences = [clip for clip in clips if clip["split"] == "train" and "keyword" not in clip]
        for clip in sentences[1:]:
            clip["keyword"] = "none"

    faulty = replace(settings, data=(str(changed_set(single)),), tasks=("phone",))
    refused(["filterbanks"], faulty, "a single clip to train on: .*expected 2 or more")


def test_random_weights_keep_the_architecture(make_encoder: Callable[..., SpeechEncoder]) -> None:
    encoder = make_encoder(5)
    other = with_random_weights(encoder)
    assert {name: value.shape for name, value in other.state_dict().items()} == {
        name: value.shape for name, value in encoder.state_dict().items()
    }
    clip = torch.randn(1, 800)
    assert not torch.allclose(other.hidden_states(clip)[-1], encoder.hidden_states(clip)[-1], atol=1e-2)
    again = with_random_weights(make_encoder(6))
    assert again.hidden_states(clip)[-1].equal(other.hidden_states(clip)[-1])


def test_features_of_a_clip_are_its_own(make_encoder: Callable[..., SpeechEncoder], labelled_sound: Path) -> None:
    """What is heard beside a clip, and in which order, changes nothing in its hidden states."""
    segments = [example.segment for example in open_sets([str(labelled_sound)])["keyword"].test]
    frontend = EncoderFrontend(make_encoder(), torch.device("cpu"))
    chosen = segments[3]
    all_of_them = extract(frontend, reversed(segments), with_frames={chosen.name})
    alone = extract(frontend, [chosen], with_frames={chosen.name})
    assert set(all_of_them.means) == {segment.name for segment in segments}
    assert all_of_them.means[chosen.name].equal(alone.means[chosen.name])
    assert all_of_them.frames[chosen.name].equal(alone.frames[chosen.name])
    states = frontend(chosen.read())
    assert alone.means[chosen.name].equal(states.mean(1))
    assert torch.allclose(alone.frames[chosen.name].float(), states, atol=1e-2)


class Deaf:
    """A model of which nothing can be learnt."""

    parameters, framing = 0, Framing(shortest_samples=320, step_samples=320)

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, waveform: Tensor) -> Tensor:
        return torch.full((1, len(waveform) // 320, 3), self.value)


def test_states_beyond_half_precision_are_kept_and_those_that_are_not_finite_refused(labelled_sound: Path) -> None:
    (segment, *_others) = (example.segment for example in open_sets([str(labelled_sound)])["keyword"].test)
    loud = extract(Deaf(1e6), [segment], with_frames={segment.name})
    assert float(loud.frames[segment.name].max()) == 1e6
    with pytest.raises(DataError, match="hidden states are not finite"):
        extract(Deaf(float("nan")), [segment], with_frames=set())


def test_clips_too_short_for_a_model_are_refused(changed_set: Callable[..., Path]) -> None:
    folder = changed_set(lambda clips: clips[-1].update(duration_seconds=0.01))
    asked = EvaluationSettings(data=(str(folder),), device="cpu")
    refused(["filterbanks"], asked, r"clip is too short for the model: .*got 0.01 s, expected 0.025 s")


def test_a_task_without_data_is_refused(labelled_sound: Path, changed_set: Callable[..., Path]) -> None:
    def without_keywords(clips) -> None:
        clips[:] = [clip for clip in clips if "keyword" not in clip]

    folder = changed_set(without_keywords)
    for file in folder.glob("*.wav"):
        if file.name not in (folder / "manifest.json").read_text():
            file.unlink()
    with pytest.raises(ConfigError, match="no data for the task: keyword; the data serve phone, speaker, verification"):
        evaluated(["filterbanks"], EvaluationSettings(data=(str(folder),), tasks=("keyword",)))
    shutil.rmtree(folder)


def test_yardsticks_are_opened_by_name() -> None:
    waveform = torch.randn(16_000)
    states, normalised = (
        open_frontend(name, torch.device("cpu"))(waveform) for name in ("filterbanks", "filterbanks:cmvn")
    )
    assert states.shape == normalised.shape == (1, 98, 240)
    assert torch.allclose(normalised * states.std(1, correction=0) + states.mean(1), states, atol=1e-3)
    with pytest.raises(ConfigError, match="did you mean 'embedded'"):
        open_frontend("random:embeded", torch.device("cpu"))
    with pytest.raises(ConfigError, match="did you mean 'filterbanks'"):
        open_frontend("filterbank", torch.device("cpu"))


def test_normalised_filterbanks_leave_nothing_of_a_clip_in_its_mean() -> None:
    bands = open_frontend("filterbanks:cmvn", torch.device("cpu"))
    for samples in (16_000, 400, 401):
        states = bands(torch.randn(samples))
        assert torch.allclose(states.mean(1), torch.zeros(240), atol=1e-4)
    # A single frame, whose deviation is 0.
    assert bands(torch.randn(400)).isfinite().all()
