"""What a user can get wrong: one line on stderr that says what to do, exit status 2, nothing left behind."""

import errno
import io
import json
import os
import pickle
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import soundfile
import torch

import l0prune


class Trap:
    """A pickle of this creates a file when it is loaded without care."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def interrupted(bench, tmp_path: Path, monkeypatch) -> Path:
    """A run that stopped after three steps, with a checkpoint of each of the last two."""
    import signal

    import l0prune_cli.progress

    def stop(_self, record) -> None:
        if record.step == 3:
            signal.raise_signal(signal.SIGINT)

    run = tmp_path / "interrupted"
    config = tmp_path / "often.toml"
    config.write_text("checkpoint_minutes = 0.0\n" + bench.settings.read_text())
    with monkeypatch.context() as patch:
        patch.setattr(l0prune_cli.progress.TerminalObserver, "record", stop)
        assert bench.compress("--out", run, config=config).code == 130
    assert len(list((run / "checkpoints").iterdir())) == 2
    return run


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
            ("[joint]\nsteps = 10", ["warmup_steps out of range: joint", "got 40", "0 to steps"]),
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
        outcome = bench.compress("--out", out, "--data", tmp_path)
        outcome.refused("no usable clips", "3 shorter than 2.0 s", "the longest is 0.5 s", "min_seconds")
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


class TestRunDirectory:
    def test_holds_another_run(self, bench, finished) -> None:
        before = {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*")}
        bench.compress("--out", finished.folder).refused("folder holds another run", "choose another --out")
        assert {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*")} == before

    def test_holds_an_unfinished_run(self, bench, interrupted) -> None:
        bench.compress("--out", interrupted).refused("folder holds another run", "--resume")

    def test_holds_something_else(self, bench, out) -> None:
        out.mkdir()
        (out / "thesis.tex").write_text("do not touch")
        bench.compress("--out", out).refused("folder is not empty", str(out))
        assert [path.name for path in out.iterdir()] == ["thesis.tex"]

    def test_empty_folder_is_fine(self, bench, out, toml) -> None:
        out.mkdir()
        bench.compress("--out", out, config=toml(("steps = 10", "steps = 2"), ("steps = 6", "steps = 0"))).succeeded()

    def test_is_a_file(self, bench, out) -> None:
        out.write_text("a file")
        bench.compress("--out", out).refused("not a folder", str(out))
        assert out.read_text() == "a file"

    @pytest.mark.parametrize("extra", [(), ("--resume",)])
    def test_lies_below_a_file(self, bench, tmp_path, extra) -> None:
        (tmp_path / "file").write_text("a file")
        bench.compress("--out", tmp_path / "file" / "run", *extra).refused(str(tmp_path / "file" / "run"))

    def test_cannot_be_made(self, bench) -> None:
        bench.compress("--out", "/proc/l0prune-run").refused("cannot write: /proc/l0prune-run")

    def test_name_too_long(self, bench, tmp_path) -> None:
        bench.compress("--out", tmp_path / ("x" * 300)).refused("too long")

    def test_disk_full_at_the_beginning(self, bench, out, monkeypatch) -> None:
        monkeypatch.setattr("l0prune.support.files.os.fsync", _no_space)
        bench.compress("--out", out).refused("cannot write", "No space left on device", "free some space")
        assert not out.exists()


class TestResume:
    def test_complete_run(self, bench, finished) -> None:
        outcome = bench.compress("--out", finished.folder, "--resume")
        outcome.refused("nothing to resume: the run is complete", str(finished.folder))

    def test_other_settings(self, bench, interrupted, tmp_path) -> None:
        config = tmp_path / "often.toml"
        outcome = bench.compress("--out", interrupted, "--resume", "--target-sparsity", 0.5, config=config)
        outcome.refused("settings differ", ": target_sparsity", "got 0.5", "expected 0.75")
        outcome = bench.compress("--out", interrupted, "--resume", "--units", "ffn", config=config)
        outcome.refused("settings differ", ": speech.units")
        # How often it is saved has no effect on the student.
        assert "checkpoint_minutes" not in bench.settings.read_text()
        bench.compress("--out", interrupted, "--resume").succeeded()

    @pytest.mark.parametrize("width", [32, 64])
    def test_other_teacher_of_the_same_name(self, width, bench, interrupted, tmp_path) -> None:
        """Whether or not its weights would fit."""
        from l0prune_speech.encoder.modules import build_encoder
        from safetensors.torch import save_file

        with l0prune_file(bench.teacher) as file:
            metadata = file.metadata()
        small = {**json.loads(metadata["config"]), "encoder_ff_interm_features": width}
        kept = bench.teacher.read_bytes()
        # The first teacher's weights come from seed 0.
        torch.manual_seed(1)
        try:
            weights = {name: tensor.contiguous() for name, tensor in build_encoder(small).state_dict().items()}
            save_file(weights, bench.teacher, metadata={**metadata, "config": json.dumps(small)})
            outcome = bench.compress("--out", interrupted, "--resume", config=tmp_path / "often.toml")
        finally:
            bench.teacher.write_bytes(kept)
        outcome.refused("teacher or data differ from those the run began with", str(interrupted))

    def test_other_clips_below_the_same_folder(self, bench, interrupted, tmp_path) -> None:
        moved = next(path for path in sorted(bench.clips.rglob("*")) if path.is_file())
        elsewhere = tmp_path / moved.name
        moved.rename(elsewhere)
        try:
            outcome = bench.compress("--out", interrupted, "--resume", config=tmp_path / "often.toml")
        finally:
            elsewhere.rename(moved)
        outcome.refused("teacher or data differ from those the run began with", str(interrupted))

    @pytest.mark.parametrize("damage", ["empty", "short", "noise", "flipped"])
    def test_damaged_checkpoint(self, damage, bench, interrupted, tmp_path) -> None:
        """The one before is taken, with a word; where all are damaged, that is the error."""
        before, newest = sorted((interrupted / "checkpoints").iterdir())
        data = newest.read_bytes()
        if damage == "empty":
            newest.write_bytes(b"")
        elif damage == "short":
            newest.write_bytes(data[: len(data) // 2])
        elif damage == "noise":
            newest.write_bytes(os.urandom(3000))
        else:
            newest.write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
        kept = before.read_bytes()
        before.write_bytes(b"")
        outcome = bench.compress("--out", interrupted, "--resume", config=tmp_path / "often.toml")
        outcome.refused("damaged checkpoint", str(newest))
        before.write_bytes(kept)
        outcome = bench.compress("--out", interrupted, "--resume", config=tmp_path / "often.toml").succeeded()
        word, *_ = outcome.out.splitlines()
        assert word.startswith(f"damaged checkpoint: {newest} (got ")
        assert word.endswith("): going on from the one before")

    @pytest.mark.parametrize("content", [3, {"version": -1}])
    def test_checkpoint_of_another_version(self, content, bench, interrupted, tmp_path) -> None:
        newest = sorted((interrupted / "checkpoints").iterdir())[-1]
        torch.save(content, newest)
        outcome = bench.compress("--out", interrupted, "--resume", config=tmp_path / "often.toml")
        outcome.refused("checkpoint of another version", str(newest))

    @pytest.mark.parametrize("how", ["pickle", "torch"])
    def test_checkpoint_that_would_run_code(self, how, bench, interrupted, tmp_path) -> None:
        marker = tmp_path / "it ran"
        newest = sorted((interrupted / "checkpoints").iterdir())[-1]
        if how == "pickle":
            newest.write_bytes(pickle.dumps(Trap(marker)))
        else:
            torch.save({"version": 2, "trap": Trap(marker)}, newest)
        trap = newest.read_bytes()
        outcome = bench.compress("--out", interrupted, "--resume", config=tmp_path / "often.toml")
        assert f"damaged checkpoint: {newest} (got " in outcome.succeeded().out
        assert not marker.exists()
        torch.load(io.BytesIO(trap), weights_only=False) if how == "torch" else pickle.loads(trap)
        assert marker.exists()  # The trap itself works.

    def test_damaged_settings(self, bench, interrupted, tmp_path) -> None:
        (interrupted / "config.toml").write_text("seed = ")
        outcome = bench.compress("--out", interrupted, "--resume", config=tmp_path / "often.toml")
        outcome.refused("not a TOML file", "config.toml")


class TestDiskFull:
    def test_while_saving(self, bench, out, tmp_path, monkeypatch) -> None:
        """The checkpoint before survives, and the run goes on from it once there is room."""
        import l0prune.storage.checkpoint

        config = tmp_path / "often.toml"
        config.write_text("checkpoint_minutes = 0.0\n" + bench.settings.read_text())
        save = torch.save

        def full(state, path) -> None:
            if state["position"] == 4:
                Path(path).write_bytes(b"half")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            save(state, path)

        with monkeypatch.context() as patch:
            patch.setattr(l0prune.storage.checkpoint.torch, "save", full)
            outcome = bench.compress("--out", out, config=config)
        assert outcome.code == 2
        assert outcome.err.startswith("l0prune: error: cannot write")
        assert "No space left on device" in outcome.err
        assert outcome.err.count("\n") == 1
        assert sorted(path.name for path in (out / "checkpoints").iterdir()) == [
            "step-00000002.pt",
            "step-00000003.pt",
        ]
        bench.compress("--out", out, "--resume", config=config).succeeded()

    def test_really(self, bench, tmp_path) -> None:
        """On a file system of a megabyte, which two checkpoints fill."""
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
        try:
            mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
        except OSError:
            mounted = False
        if not mounted:
            pytest.skip("mounting takes more rights")
        try:
            config = tmp_path / "often.toml"
            config.write_text("checkpoint_minutes = 0.0\n" + bench.settings.read_text())
            outcome = bench.compress("--out", disk / "run", config=config)
            left = sorted(path.name for path in (disk / "run" / "checkpoints").iterdir())
        finally:
            # Lazily: torch may still hold the file that it could not finish.
            subprocess.run(["umount", "-l", str(disk)], check=True)
        assert outcome.code == 2
        assert outcome.err.startswith(f"l0prune: error: cannot write: {disk}/run/checkpoints/step-")
        assert outcome.err.count("\n") == 1
        assert left
        assert all(re.fullmatch(r"step-\d+\.pt", name) for name in left)

    def test_safetensors_own_error(self, tmp_path) -> None:
        """Its error for a full disk is neither OSError nor RuntimeError."""
        from safetensors import SafetensorError

        from l0prune.support.files import write_atomic

        def full(path: Path) -> None:
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

        with pytest.raises(l0prune.RunError, match="cannot write"):
            write_atomic(tmp_path / "model.safetensors", full)
        assert list(tmp_path.iterdir()) == []


class TestLoad:
    @pytest.fixture
    def copy(self, finished, tmp_path) -> Path:
        return Path(shutil.copytree(finished.folder, tmp_path / "copy"))

    @pytest.mark.parametrize("size", [0, 4, 100, -50])
    def test_damaged_weights(self, size, copy) -> None:
        weights = copy / "model.safetensors"
        data = weights.read_bytes()
        weights.write_bytes(data[:size])
        with pytest.raises(l0prune.RunError, match="damaged or missing weights"):
            l0prune.load(copy)

    def test_missing_weights(self, copy) -> None:
        (copy / "model.safetensors").unlink()
        with pytest.raises(l0prune.RunError, match="damaged or missing weights"):
            l0prune.load(copy)

    def test_weights_of_another_network(self, copy, bench) -> None:
        shutil.copy(bench.teacher, copy / "model.safetensors")
        with pytest.raises(l0prune.L0PruneError, match="damaged or missing weights"):
            l0prune.load(copy)
        without_checksums(copy)
        with pytest.raises(l0prune.L0PruneError, match="do not fit the plan"):
            l0prune.load(copy)

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '{"format": "l0prune"}'])
    def test_damaged_description(self, text, copy) -> None:
        (copy / "model.json").write_text(text)
        with pytest.raises(l0prune.RunError, match=r"model\.json"):
            l0prune.load(copy)

    @pytest.mark.filterwarnings("ignore:.*saved before there were checksums")
    def test_anything_missing_or_of_the_wrong_kind_is_refused(self, copy) -> None:
        """Each entry of model.json, two levels deep, taken away or replaced."""
        path = without_checksums(copy)
        whole = json.loads(path.read_text())
        # Provenance is for people, and `verify` alone counts again; a version is compared, whatever stands there.
        places = [(key,) for key in whole if key not in ("provenance", "counted_on")]
        places += [("plan", key) for key in whole["plan"]] + [("architecture", "encoder_embed_dim")]
        gone = object()
        for place in places:
            for value in (gone, None, 3, "text", [], {}):
                spoiled = json.loads(path.read_text())
                owner = spoiled
                for key in place[:-1]:
                    owner = owner[key]
                if value is gone:
                    del owner[place[-1]]
                else:
                    owner[place[-1]] = value
                (copy / "model.json").write_text(json.dumps(spoiled))
                with pytest.raises(l0prune.L0PruneError) as caught:
                    l0prune.load(copy)
                assert str(caught.value), (place, value)
                path.write_text(json.dumps(whole))
        l0prune.load(copy)

    def test_missing_folder(self, tmp_path) -> None:
        with pytest.raises(l0prune.RunError, match="no pruned model here"):
            l0prune.load(tmp_path / "nowhere")


def without_checksums(folder: Path) -> Path:
    """A folder's model.json, as it was before there were checksums: any change would be seen by them."""
    path = folder / "model.json"
    content = json.loads(path.read_text())
    content.pop("sha256", None)
    path.write_text(json.dumps(content))
    return path


def l0prune_file(path: Path):
    from safetensors import safe_open

    return safe_open(path, "pt")


def _no_space(_descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
