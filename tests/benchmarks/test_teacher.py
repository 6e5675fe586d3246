"""benchmarks/teacher: clips and their units, masked prediction, what closing a part costs, and a run that goes on."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import command
from hypothesis import given, settings
from hypothesis import strategies as st
from l0bench.real_material.speech import Prompt
from l0bench.teacher import masked_prediction, pretraining
from l0bench.teacher.closings import closing_costs
from l0bench.teacher.corpus import FRAME, Clip, crop, load_clips, repeated, save_clips, streams
from l0bench.teacher.masked_prediction import SPAN, MaskedPredictor, masked_spans, unit_losses
from l0bench.teacher.real_labels import characters, digits, languages, named_after
from safetensors import safe_open
from safetensors.torch import load_file

from l0prune import DataError

TINY = {
    **masked_prediction.ENCODER,
    "extractor_conv_layer_config": [[8, 10, 5]] + [[8, 3, 2]] * 4 + [[8, 2, 2]] * 2,
    "encoder_embed_dim": 16,
    "encoder_pos_conv_groups": 4,
    "encoder_num_layers": 2,
    "encoder_num_heads": 2,
    "encoder_ff_interm_features": 16,
}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small encoder in place of the teacher's."""
    monkeypatch.setattr(masked_prediction, "ENCODER", TINY)


def clip(frames: int, speaker: str = "a", first: int = 0, rest: int = 0) -> Clip:
    # Samples of frame t have the value first + t, and so have its units.
    numbers = torch.arange(first, first + frames, dtype=torch.int16)
    samples = torch.cat([numbers.repeat_interleave(FRAME), torch.full((rest,), -1, dtype=torch.int16)])
    return Clip(samples=samples, speaker=speaker, units={"one": numbers, "two": numbers + 1})


@given(st.lists(st.tuples(st.integers(1, 9), st.sampled_from("abc"), st.integers(0, FRAME - 1)), min_size=1))
@settings(max_examples=20)
def test_clips_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, made: list) -> None:
    clips = [clip(frames, speaker, 10 * i, rest) for i, (frames, speaker, rest) in enumerate(made)]
    file = tmp_path_factory.mktemp("clips") / "units.safetensors"
    save_clips(clips, file, {"sources": {}})
    found, about = load_clips(file)
    assert about == {"sources": {}}
    assert len(found) == len(clips)
    for ours, theirs in zip(clips, found, strict=True):
        assert ours.speaker == theirs.speaker
        assert torch.equal(ours.samples, theirs.samples)
        assert all(torch.equal(ours.units[name], theirs.units[name]) for name in ("one", "two"))


def test_a_file_without_clips_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "units.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"cannot read the clips.*make_units\.py"):
        load_clips(tmp_path / "units.safetensors")


@given(st.lists(st.tuples(st.integers(1, 30), st.sampled_from("ab")), min_size=1, max_size=20), st.integers(1, 40))
def test_a_stream_is_of_one_speaker_and_a_crop_keeps_units_beside_their_sound(made: list, frames: int) -> None:
    clips = [clip(length, speaker, 100 * i, rest=7) for i, (length, speaker) in enumerate(made)]
    rows = streams(clips, frames, np.random.default_rng(0))
    assert len({id(c) for row in rows for c in row}) == sum(map(len, rows))
    for row in rows:
        assert len({c.speaker for c in row}) == 1
        waveform, units = crop(row, frames, np.random.default_rng(1))
        assert waveform.shape == (FRAME * frames + 80,)
        heard = (waveform * 32768).round().long()[: FRAME * frames : FRAME]
        assert torch.equal(heard, units["one"])
        assert torch.equal(heard + 1, units["two"])


@given(st.integers(4, 41))
def test_speech_heard_twice_has_the_same_units_twice(frames: int) -> None:
    row = [clip(60)]
    waveform, units = repeated(row, frames, np.random.default_rng(0))
    half = frames // 2
    assert waveform.shape == (FRAME * frames + 80,)
    assert all(found.shape == (frames,) for found in units.values())
    assert torch.equal(units["one"][:half], units["one"][half : 2 * half])
    assert torch.equal((waveform * 32768).round().long()[: FRAME * half : FRAME], units["one"][:half])


@given(st.integers(1, 3), st.integers(SPAN + 1, 60), st.floats(0.1, 0.9))
def test_masked_frames_stand_in_whole_spans(crops: int, frames: int, share: float) -> None:
    masked = masked_spans(crops, frames, share, torch.Generator().manual_seed(0))
    spans = int(share * frames / SPAN)
    for row in masked:
        assert min(spans, 1) * SPAN <= int(row.sum()) <= spans * SPAN
        lengths = [len(part) for part in "".join("x" if m else " " for m in row.tolist()).split()]
        assert all(length >= SPAN for length in lengths)


@pytest.mark.usefixtures("tiny")
def test_masked_frames_are_not_heard_where_they_are_masked() -> None:
    torch.manual_seed(0)
    model = MaskedPredictor({"one": 5}).eval()
    waveforms, masked = torch.randn(1, FRAME * 30 + 80), torch.ones(1, 30, dtype=torch.bool)
    logits, _ = model(waveforms, masked)
    others, _ = model(torch.randn_like(waveforms), masked)
    assert logits["one"].shape == (1, 30, 5)
    assert torch.allclose(logits["one"], others["one"])
    units = {"one": torch.randint(5, (1, 30))}
    plain = [-torch.log_softmax(logits["one"][0, t], -1)[units["one"][0, t]] for t in range(30)]
    torch.testing.assert_close(unit_losses(logits, units, masked)["one"], torch.stack(plain).mean())


@pytest.mark.usefixtures("tiny")
def test_closing_a_part_costs_nothing_only_where_it_says_nothing() -> None:
    torch.manual_seed(0)
    model = MaskedPredictor({"one": 5}).eval()
    with torch.no_grad():
        layer = model.encoder.encoder.transformer.layers[1]
        layer.attention.out_proj.weight.zero_()
        layer.attention.out_proj.bias.zero_()
    waveforms, masked = torch.randn(2, FRAME * 30 + 80), torch.zeros(2, 30, dtype=torch.bool)
    with torch.no_grad():
        costs = closing_costs(model.encoder, lambda: float(model(waveforms, masked)[0]["one"].square().mean()))
    assert costs["attention of layer 1"] == 0
    assert all(cost != 0 for part, cost in costs.items() if part != "attention of layer 1")
    assert len(costs) == 2 + 2 * 2 + 7


@pytest.mark.usefixtures("tiny")
def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretrain = command("teacher/pretrain_units")
    monkeypatch.setattr(pretraining, "KEPT_EVERY", 2)
    generator = torch.Generator().manual_seed(0)
    clips = [
        Clip(
            samples=torch.randint(-9000, 9000, (FRAME * 40,), generator=generator).short(),
            speaker=f"{i % 20}",
            units={"one": torch.randint(5, (40,), generator=generator).short()},
        )
        for i in range(60)
    ]
    save_clips(clips, tmp_path / "units", {"sources": {"one": {"layer": 1, "classes": 5}}})

    def main(run: str, *more: str) -> None:
        given = ["--clips", str(tmp_path / "units"), "--run", str(tmp_path / run)]
        pretrain.main([*given, "--steps", "6", "--batch", "2", "--frames", "30", "--every", "3", *more])

    main("whole")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        # After step 4 was kept.
        steps = iter(range(4))
        true = torch.optim.AdamW.step
        patch.setattr(torch.optim.AdamW, "step", lambda self: true(self) if next(steps, None) is not None else stop())
        with pytest.raises(KeyboardInterrupt):
            main("stopped")
    main("stopped")
    with safe_open(tmp_path / "whole/teacher.safetensors", "pt") as opened:
        assert json.loads(opened.metadata()["config"])["encoder_num_layers"] == 2
    one, two = (load_file(tmp_path / run / "teacher.safetensors") for run in ("whole", "stopped"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    results = [json.loads((tmp_path / run / "teacher.json").read_text()) for run in ("whole", "stopped")]
    assert results[0]["closed"]["once"] == results[1]["closed"]["once"]
    assert results[0]["curve"][-1]["loss of one"] == results[1]["curve"][-1]["loss of one"]


@given(st.integers(0, 999))
def test_a_number_is_named_after_the_one_digit_of_its_word(number: int) -> None:
    digit = named_after(number)
    if digit is not None:
        assert number % 10 == digit or set(str(number)) <= {str(digit), "0"}


def test_labelled_clips_of_real_speech_share_no_recording_between_the_splits() -> None:
    generator = np.random.default_rng(0)

    def prompt(name: str, said: str) -> Prompt:
        return Prompt(name=name, samples=generator.integers(-9000, 9000, 20_000).astype(np.int16), transcript=said)

    numbers = [prompt(f"digits__{n}", f"number {n}") for n in (0, 6, 10, 16, 21, 60, 600)]
    found = {
        "en": [
            *numbers,
            prompt("digits__h-6", "sixth"),
            *(prompt(f"p{i}", f"now please say it {i}") for i in range(200)),
        ]
    }
    clips = digits(found)
    assert {(clip.name.rpartition("-")[0], clip.label, clip.split) for clip in clips} == {
        ("en-digits__6", "6", "test"),
        ("en-digits__16", "6", "train"),
        ("en-digits__60", "6", "train"),
        ("en-digits__600", "6", "train"),
        ("en-digits__h-6", "6", "train"),
    }
    assert all(clip.samples.dtype == np.float32 and abs(np.abs(clip.samples).max() - 0.5) < 1e-6 for clip in clips)
    for chosen in (languages(found), characters(found["en"])):
        sides = [{clip.name for clip in chosen if clip.split == side} for side in ("train", "test")]
        assert sides[0]
        assert sides[1]
        assert not sides[0] & sides[1]
