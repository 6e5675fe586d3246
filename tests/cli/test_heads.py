"""`l0prune compress --task`: networks with their heads, from transformers' folders to evaluated, exported runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import transformers
from tiny_networks import save_network, skip_where_missing

import l0prune

SETTINGS = """
log_every = 1
precision = "float32"
device = "cpu"
target_sparsity = 0.3
[joint]
steps = 6
warmup_steps = 1
[further]
steps = 3
warmup_steps = 0
[controller]
kind = "projected"
warmup_steps = 2
[speech]
batch_seconds = 6.0
min_seconds = 0.3
evaluation_seconds = 3.0
workers = 0
join_clips = false
"""


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten clips with letters, a class and a speaker each, and settings."""
    folder = tmp_path_factory.mktemp("material")
    noise = np.random.default_rng(0)
    rows = ["path\ttext\tlabel\tspeaker"]
    for number in range(10):
        soundfile.write(folder / f"{number}.wav", 0.1 * noise.standard_normal(9_000 + 700 * number), 16_000)
        said = " ".join(noise.choice(list("abcdef"), size=3))
        rows.append(f"{number}.wav\t{said}\tLABEL_{number % 3}\tLABEL_{number % 3}")
    (folder / "list.tsv").write_text("\n".join(rows) + "\n")
    (folder / "settings.toml").write_text(SETTINGS)
    (folder / "audio").mkdir()
    for number in range(6):
        (folder / "audio" / f"{number}.wav").symlink_to(folder / f"{number}.wav")
    return folder


@pytest.fixture
def compress(material: Path, l0prune_call: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: object) -> Any:
        return l0prune_call("compress", "--plugin", "speech", "--config", material / "settings.toml", *arguments)

    return run


@pytest.mark.parametrize(("name", "cls"), [("wav2vec2-layered", "Wav2Vec2ForCTC"), ("whisper", None)])
def test_recognisers_keep_their_heads_from_end_to_end(
    compress: Any, l0prune_call: Any, material: Path, tmp_path: Path, name: str, cls: str | None
) -> None:
    teacher = save_network(name, tmp_path / "teacher")
    run, data = tmp_path / "run", material / "list.tsv"
    recipe = ["--recipe", "whisper"] if name == "whisper" else []
    done = compress("--teacher", teacher, "--data", data, *recipe, "--out", run, "--json").succeeded()
    report = json.loads(done.out)
    assert report["max_relative_difference"] <= 1e-5
    assert 0.3 <= report["sparsity"] <= 0.33
    assert set(report["losses_final"]) == {"layer 2", "task"}
    assert report["distill_loss_after_removal"] == pytest.approx(report["distill_loss_before_removal"], rel=1e-5)
    student: Any = l0prune.load(run)
    assert type(student).__name__ == (cls or "WhisperForConditionalGeneration")
    assert sum(parameter.numel() for parameter in student.parameters()) == report["params_after"]
    assert student.config.vocab_size == (40 if name == "whisper" else 12)

    scored = l0prune_call("evaluate", run, "--task", "asr", "--data", data, "--device", "cpu", "--json").succeeded()
    found = json.loads(scored.out)
    assert list(found["models"]) == [str(teacher), str(run)]
    assert {score["task"] for score in found["scores"]} == {"asr", "asr characters"}
    l0prune_call("export", run, "--to", "huggingface", "--out", tmp_path / "hf").succeeded()
    opener: Any = transformers.AutoModelForSpeechSeq2Seq if name == "whisper" else transformers.AutoModelForCTC
    exported = opener.from_pretrained(tmp_path / "hf", trust_remote_code=True).eval()
    assert sum(parameter.numel() for parameter in exported.parameters()) == report["params_after"]
    assert all(torch.equal(exported.state_dict()[key], tensor) for key, tensor in student.state_dict().items())
    l0prune_call("export", run, "--to", "s3prl", "--out", tmp_path / "x").refused("s3prl cannot hold this network")
    # What is left can be pruned again, and stays in the same indices.
    again = compress("--teacher", run, "--data", data, "--out", tmp_path / "again", "--json").succeeded()
    assert json.loads(again.out)["params_after"] < 0.71 * report["params_after"]
    assert l0prune.load(tmp_path / "again") is not None


@pytest.mark.parametrize(
    ("name", "opener"),
    [("conformer", "AutoModelForCTC"), ("parakeet", "AutoModelForCTC"), ("moonshine", "AutoModelForSpeechSeq2Seq")],
)
def test_conformers_and_moonshine_keep_their_heads(
    compress: Any, l0prune_call: Any, material: Path, tmp_path: Path, name: str, opener: str
) -> None:
    skip_where_missing(name)
    teacher, run, data = save_network(name, tmp_path / "teacher"), tmp_path / "run", material / "list.tsv"
    sparsity = ("--target-sparsity", "0.15")
    report = json.loads(compress("--teacher", teacher, "--data", data, *sparsity, "--out", run, "--json").out)
    assert report["sparsity"] >= 0.15
    assert "task" in report["losses_final"]
    student: Any = l0prune.load(run)
    l0prune_call("export", run, "--to", "huggingface", "--out", tmp_path / "hf").succeeded()
    exported = getattr(transformers, opener).from_pretrained(tmp_path / "hf", trust_remote_code=True)
    assert all(torch.equal(exported.state_dict()[key], tensor) for key, tensor in student.state_dict().items())
    asked = ("--task", "asr", "--data", data, "--device", "cpu", "--json")
    found = json.loads(l0prune_call("evaluate", run, *asked).succeeded().out)
    assert list(found["models"]) == [str(teacher), str(run)]


@pytest.mark.parametrize("name", ["classes", "x-vector", "frames", "whisper-classes"])
def test_other_heads_and_the_teachers_own_answers(compress: Any, material: Path, tmp_path: Path, name: str) -> None:
    teacher = save_network(name, tmp_path / "teacher")
    labelled = [] if name == "frames" else ["--data", material / "list.tsv"]
    data = [*labelled, "--data", material / "audio"]
    out = tmp_path / "run"
    done = compress("--teacher", teacher, *data, "--logit-weight", "0.5", "--out", out, "--json").succeeded()
    report = json.loads(done.out)
    assert set(report["losses_final"]) == {"layer 2", "logits", "task"}
    assert report["max_relative_difference"] <= 1e-5


def test_an_encoder_of_whisper_alone_and_a_decoder_that_is_ignored(
    compress: Any, material: Path, tmp_path: Path
) -> None:
    teacher = save_network("whisper", tmp_path / "teacher")
    audio = ("--data", material / "audio")
    compress("--teacher", teacher, "--task", "distill", *audio, "--out", tmp_path / "encoder").succeeded()
    assert type(l0prune.load(tmp_path / "encoder")).__name__ == "WhisperEncoder"
    ignored = ("--ignored", "model.decoder", "--target-sparsity", "0.1")
    done = compress("--teacher", teacher, *audio, *ignored, "--out", tmp_path / "half", "--json").succeeded()
    assert all(name.startswith("model.encoder.") for name in json.loads(done.out)["kept_units"])
    compress("--teacher", teacher, *audio, "--ignored", "decoder", "--out", tmp_path / "none").refused(
        "no such module to ignore: decoder", "a dotted name below model, proj_out"
    )


def test_a_stopped_run_goes_on_to_the_same_bits(
    compress: Any, material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from l0prune.workflows.trainer import Trainer

    teacher = save_network("wav2vec2", tmp_path / "teacher")
    arguments = ("--teacher", teacher, "--data", material / "list.tsv", "--set", "checkpoint_minutes=0.0")
    compress(*arguments, "--out", tmp_path / "whole").succeeded()
    with monkeypatch.context() as patched:
        train = Trainer.train

        def stopping(self: Trainer, stage: Any) -> None:
            if stage.name == "further":
                raise KeyboardInterrupt
            train(self, stage)

        patched.setattr(Trainer, "train", stopping)
        assert compress(*arguments, "--out", tmp_path / "parts").code != 0
    compress(*arguments, "--out", tmp_path / "parts", "--resume").succeeded()
    first, second = (l0prune.load(tmp_path / name).state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_does_not_fit_is_refused_in_a_line(compress: Any, material: Path, tmp_path: Path) -> None:
    teacher = save_network("wav2vec2", tmp_path / "teacher")
    data = ("--data", material / "list.tsv", "--out", tmp_path / "run")
    compress("--teacher", teacher, "--task", "classify", *data).refused("no head for the task", "--task ctc")
    compress("--teacher", teacher, "--matched-layers", "5", *data).refused("matched layer does not exist", "0 to 2")
    compress("--teacher", teacher, "--units", "attention", *data).refused("no such kind of unit: attention")
    compress("--teacher", teacher, "--max-seconds", "0.4", *data).refused("every clip is too long")
    compress("--teacher", teacher, "--layer-weight", "0", "--task-weight", "0", *data).refused("nothing to minimise")
    (tmp_path / "strange.tsv").write_text(f"path\ttext\n{material / '0.wav'}\t123\n{material / '1.wav'}\tab\n")
    strange = ("--data", tmp_path / "strange.tsv", "--out", tmp_path / "run")
    compress("--teacher", teacher, *strange).refused("nothing of the transcript is in the vocabulary: 0.wav")
    compress("--teacher", "embedded", "--task", "ctc", *data).refused("embedded")
    assert not (tmp_path / "run").exists()
