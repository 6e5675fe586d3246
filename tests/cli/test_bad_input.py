"""What a user can get wrong: one line on stderr that says what to do, exit status 2, nothing left behind."""

import os
import re
import shutil

import pytest
import soundfile
import torch


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--teacher", "HUBERT_BSE"], ["no such teacher: HUBERT_BSE", "did you mean 'HUBERT_BASE'?"]),
        (["--teacher", "hubert-base"], ["no such teacher: hubert-base", "did you mean 'HUBERT_BASE'?"]),
        (["--teacher", "/nowhere/teacher.safetensors"], ["no such teacher: /nowhere/teacher.safetensors"]),
        (["--teacher", "x" * 300], ["no such teacher"]),
        (["--data", "/nowhere/clips"], ["no such file or folder: /nowhere/clips"]),
        (["--recipe", "quik"], ["no such recipe: quik", "did you mean 'quick'?"]),
        (["--config", "/nowhere/settings.toml"], ["cannot read the configuration: /nowhere/settings.toml"]),
        (["--units", "conv,hed"], ["no such kind of unit: hed", "did you mean 'head'?"]),
        (["--units", ""], ["no units to prune"]),
        (["--metric", "watts"], ["unknown metric", "got watts"]),
        (["--device", "foo"], ["device cannot be used: foo", "cpu"]),
        (["--device", "cuda:99"], ["device cannot be used: cuda:99"]),
        (["--device", "meta"], ["device cannot be used: meta"]),
        (["--device", ""], ["device cannot be used"]),
        (["--seed", "-1"], ["seed out of range"]),
        (["--seed", str(2**64)], ["seed out of range"]),
        (["--target-sparsity", "0"], ["target sparsity out of range", "got 0.0"]),
        (["--target-sparsity", "1"], ["target sparsity out of range"]),
        (["--target-sparsity", "-0.5"], ["target sparsity out of range"]),
        (["--target-sparsity", "nan"], ["target sparsity out of range", "got nan"]),
        (["--target-sparsity", "inf"], ["target sparsity out of range", "got inf"]),
        (["--resume"], ["nothing to resume"]),
    ],
)
def test_flag(bench, out, flags, words) -> None:
    bench.compress("--out", out, *flags).refused(*words)
    assert not out.exists()


def test_plugin(l0prune_call) -> None:
    for command in ("compress", "groups"):
        l0prune_call(command, "--plugin", "speach").refused("no such plugin: speach", "did you mean 'speech'?")


def test_resume_needs_out(bench) -> None:
    bench.compress("--resume").refused("--resume needs the run directory", "--out DIR")


def test_no_gpu(bench, out) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    bench.compress("--out", out, "--device", "cuda").refused("device cannot be used: cuda", "no GPU is in reach")
    assert not out.exists()


class TestSettings:
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("target_sparsty = 0.5", ["no such setting: target_sparsty", "did you mean 'target_sparsity'?"]),
            ("[speach]\nworkers = 0", ["no such setting: speach", "did you mean 'speech'?"]),
            ("[joint]\nstep = 3", ["no such setting: joint.step", "did you mean 'steps'?"]),
            ("[gates]\nroundto = 8", ["no such setting: gates.roundto", "did you mean 'round_to'?"]),
            ("[speech]\nteachr = 'x'", ["no such setting: speech.teachr", "did you mean 'teacher'?"]),
            ("[options]\nteacher = 'x'", ["no such setting: options", "[speech]"]),
            ("target_sparsity = = 1", ["not a TOML file", "settings.toml", "line 1"]),
            ("target_sparsity = 'much'", ["wrong type: target_sparsity", "got 'much'", "expected a number"]),
            ("[joint]\nsteps = 1.5", ["wrong type: joint.steps", "got 1.5", "expected a whole number"]),
            ("[speech]\ndata = 'clips'", ["wrong type: speech.data", "got 'clips'", "expected a list"]),
            ("[speech]\ndata = [3]", ["wrong type: speech.data", "got 3", "expected a string"]),
            ("[speech]\ndropout = 1", ["wrong type: speech.dropout", "expected true or false"]),
            ("joint = 3", ["not a table: joint", "got 3"]),
            ("speech = 3", ["not a table: speech", "got 3"]),
            ("[joint]\nsteps = -1\nwarmup_steps = 0", ["steps out of range: joint", "got -1"]),
            ("[joint]\nsteps = 10\nwarmup_steps = 40", ["warmup_steps out of range: joint", "got 40", "0 to steps"]),
            ("[joint]\nlearning_rate = nan", ["learning_rate out of range: joint", "got nan"]),
            ("checkpoint_minutes = -1", ["checkpoint_minutes out of range", "got -1"]),
            ("[gates]\ntemperature = 0", ["temperature out of range: gates", "got 0"]),
            ("[gates]\nlow = 0.1", ["low out of range: gates"]),
            ("[gates.drop_rates]\nffn = 1.0", ["drop rate out of range: gates", "got 1.0"]),
            ("[gates.drop_rates]\nfnn = 0.5", ["no such kind of unit: gates.drop_rates.fnn", "did you mean 'ffn'?"]),
            ("[speech]\nlayer_drop = 1.0", ["layer_drop out of range: speech"]),
            ("[speech]\nmode = 'layer'", ["unknown distillation mode", "got layer"]),
            ("[speech]\nmatched_layers = [0, 9]", ["matched layer does not exist", "0 to 2"]),
            ("[speech]\nmin_seconds = 0.01", ["too short for the network: speech.min_seconds", "0.025 or more"]),
            ("[speech]\nbatch_seconds = 0.01", ["too short for the network: speech.batch_seconds"]),
        ],
    )
    def test_refused(self, text, words, bench, out, tmp_path, l0prune_call) -> None:
        path = tmp_path / "settings.toml"
        path.write_text(text)
        flags = ["--teacher", bench.teacher, *([] if "data" in text else ["--data", bench.clips])]
        flags = [] if "speech =" in text else flags
        command = ["compress", "--plugin", "speech", *flags, "--device", "cpu", "--config", path, "--out", out]
        l0prune_call(*command).refused(*words)
        assert not out.exists()

    def test_more_than_can_be_removed(self, bench, out, toml) -> None:
        config = toml(("steps = 10", "steps = 2"), ("steps = 6", "steps = 0"))
        outcome = bench.compress("--out", out, "--target-sparsity", 0.99, config=config)
        outcome.refused("target sparsity is more than can be removed", "got 0.99")
        assert not out.exists()
        advice = re.search(r"at most (0\.\d+)", outcome.err)
        assert advice
        bench.compress("--out", out, "--target-sparsity", advice[1], config=config).succeeded()


class TestAudio:
    def test_folder_without_audio(self, bench, out, tmp_path) -> None:
        (tmp_path / "notes").mkdir()
        (tmp_path / "notes" / "a.txt").write_text("no audio")
        bench.compress("--out", out, "--data", tmp_path / "notes").refused("no audio in this folder", ".wav")
        assert not out.exists()

    def test_all_too_short(self, bench, out, tmp_path) -> None:
        for number in range(3):
            soundfile.write(tmp_path / f"{number}.wav", torch.zeros(8_000).numpy(), 16_000)
        outcome = bench.compress("--out", out, "--data", tmp_path, "--short-clips", "skip")
        outcome.refused("no usable clips", "3 shorter than 2.0 s", "the longest is 0.5 s", "min_seconds")
        # Joined they make one window.
        bench.compress("--out", out, "--data", tmp_path).refused("too few clips to hold some out", "got 1")
        assert not out.exists()

    def test_single_clip(self, bench, out) -> None:
        outcome = bench.compress("--out", out, "--data", bench.clips / "clip0.wav")
        outcome.refused("too few clips to hold some out")
        assert not out.exists()

    def test_bad_files_among_good_ones_are_left_out_and_named(self, bench, out, tmp_path) -> None:
        data = tmp_path / "clips"
        shutil.copytree(bench.clips, data)
        (data / "noise.wav").write_bytes(os.urandom(4_000))
        (data / "empty.flac").touch()
        outcome = bench.compress("--out", out, "--data", data).succeeded()
        line = next(line for line in outcome.out.splitlines() if line.startswith("data: "))
        assert line.startswith("data: 6 clips, ")
        assert "2 skipped" in line
        assert "noise.wav (not readable as audio)" in line
        assert "empty.flac (zero length)" in line
        assert outcome.err == ""


class TestTeacherFile:
    @pytest.mark.parametrize(
        ("damage", "words"),
        [
            (lambda data: b"", ["damaged safetensors file"]),
            (lambda data: data[:1000], ["damaged safetensors file"]),
            (lambda data: data[:-100], ["damaged safetensors file"]),
            (lambda data: os.urandom(5000), ["damaged safetensors file"]),
            (
                lambda data: data.replace(b"l0prune-speech-teacher", b"another-kind-of-thing!"),
                ["not a checkpoint of a known format", "another-kind-of-thing!"],
            ),
            (lambda data: data.replace(b"encoder_num_heads", b"encoder_num_xxxxx"), ["no encoder has", "num_xxxxx"]),
            (lambda data: data.replace(b"encoder_num_layers", b"encoder_num_lllers"), ["contradicts", "layers = none"]),
            (
                lambda data: data.replace(b'num_layers\\": 2', b'num_layers\\": 3'),
                ["config contradicts its tensors", "of 2 layers", "encoder_num_layers = 3"],
            ),
        ],
    )
    def test_damaged(self, damage, words, bench, out, tmp_path) -> None:
        path = tmp_path / "teacher.safetensors"
        data = bench.teacher.read_bytes()
        path.write_bytes(damage(data))
        assert path.read_bytes() != data
        bench.compress("--out", out, "--teacher", path).refused(*words)
        assert not out.exists()
