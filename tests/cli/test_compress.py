"""`l0prune compress` from end to end, interrupted and continued."""

import json
import os
import re
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import l0prune
import l0prune.adapters.terminal

CONTRACT = set(
    "teacher params_before params_after target_sparsity sparsity macs_before macs_after max_relative_difference "
    "distill_loss_before_removal distill_loss_after_removal distill_loss_final stage_seconds step_seconds "
    "peak_memory_bytes versions seed".split()
)
JOINT_STEPS, FURTHER_STEPS = 10, 6
ALL_POSITIONS = list(range(1, JOINT_STEPS + FURTHER_STEPS + 1))


def positions(run: Path) -> list[int]:
    return [json.loads(line)["position"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


class TestWithoutTraining:
    def test_units_are_ranked_removed_and_made_up_for(self, bench, tmp_path: Path, l0prune_call) -> None:
        out = tmp_path / "run"
        done = bench.compress("--steps", 0, "--target-sparsity", 0.5, "--out", out, "--json").succeeded()
        report = json.loads(done.out)
        assert report == json.loads((out / "report.json").read_text())
        assert report.keys() >= CONTRACT
        assert report["sparsity"] >= 0.5
        assert report["max_relative_difference"] <= 1e-5
        assert (
            report["distill_loss_final"] == report["distill_loss_after_repair"] < report["distill_loss_after_removal"]
        )
        assert report["stage_seconds"] == {"joint": 0.0, "further": 0.0}
        assert positions(out) == []
        assert {path.name for path in out.iterdir()} >= {"model.safetensors", "architecture.png", "checkpoints"}
        student = l0prune.load(out)
        assert report["params_after"] == sum(parameter.numel() for parameter in student.parameters())
        l0prune_call("report", out, "--out", tmp_path / "page.html").succeeded()

    def test_a_loss_without_a_gradient_is_refused(self, bench, tmp_path: Path, toml) -> None:
        config = toml(("[joint]", '[one_shot]\nimportance = "taylor"\n[joint]'))
        done = bench.compress("--steps", 0, "--out", tmp_path / "run", config=config)
        done.refused("the loss has no gradient on the calibration batches", "use activation or magnitude")
        assert not (tmp_path / "run").exists()

    def test_another_number_of_steps_keeps_the_proportion(self, bench) -> None:
        printed = json.loads(bench.compress("--steps", 8, "--print-config", "--json").succeeded().out)
        assert (printed["joint"]["steps"], printed["joint"]["warmup_steps"]) == (5, 1)
        assert (printed["further"]["steps"], printed["controller"]["warmup_steps"]) == (3, 2)

    def test_steps_below_none_are_refused(self, bench) -> None:
        bench.compress("--steps", -1).refused("steps out of range", "got -1")


class TestFinishedRun:
    def test_files(self, finished) -> None:
        names = {path.name for path in finished.folder.iterdir()}
        wanted = {"model.safetensors", "model.json", "report.json", "metrics.jsonl", "architecture.png", "config.toml"}
        assert names == {*wanted, "checkpoints", "probe.safetensors", "run.json"}
        assert (finished.folder / "architecture.png").read_bytes().startswith(b"\x89PNG")
        assert checkpoints(finished.folder) == [f"step-{JOINT_STEPS:08d}.pt"]
        assert positions(finished.folder) == ALL_POSITIONS

    def test_report(self, finished, bench) -> None:
        report = finished.report
        assert report.keys() >= CONTRACT
        student = l0prune.load(finished.folder)
        assert report["params_after"] == sum(parameter.numel() for parameter in student.parameters())
        assert report["sparsity"] == 1 - report["params_after"] / report["params_before"]
        # From above in sparsity, to within the smallest unit: an FFN unit of 2 x 32 + 1 weights.
        gap = report["sparsity"] - report["target_sparsity"]
        assert 0 <= gap * report["params_before"] <= 65
        assert 0 < report["macs_after"] < report["macs_before"]
        assert report["max_relative_difference"] <= 1e-5
        before, after = report["distill_loss_before_removal"], report["distill_loss_after_removal"]
        assert after == pytest.approx(before, rel=1e-5)
        assert 0 < report["distill_loss_final"] < after
        assert report["teacher"] == str(bench.teacher)
        assert report["run_directory"] == str(finished.folder)
        assert report["stage_seconds"].keys() == report["step_seconds"].keys() == {"joint", "further"}
        assert min(*report["stage_seconds"].values(), *report["step_seconds"].values()) > 0
        assert report["peak_memory_bytes"] > 1e6
        assert report["versions"].keys() >= {"python", "torch", "l0prune", "torchaudio"}
        assert (report["seed"], report["skipped_steps"], report["device"]) == (0, 0, "cpu")
        kept = {name: counts["kept"] for name, counts in report["kept_units"].items()}
        assert kept == {
            name: len(units)
            for name, units in json.loads((finished.folder / "model.json").read_text())["plan"]["kept"].items()
        }

    def test_json_is_alone_on_stdout(self, finished) -> None:
        assert json.loads(finished.outcome.out) == finished.report
        assert "joint stage (distil and prune): " in finished.outcome.err

    def test_network_has_torchaudios_interface(self, finished) -> None:
        student = l0prune.load(finished.folder)
        assert not student.training
        waveforms, lengths = (
            torch.randn(2, 8_000, generator=torch.Generator().manual_seed(0)),
            torch.tensor([8000, 6000]),
        )
        with torch.no_grad():
            layers, frames = student.extract_features(waveforms, lengths)  # type: ignore[operator]
            output, same_frames = student(waveforms, lengths)
        assert [tuple(layer.shape) for layer in layers] == [(2, 24, 32)] * 2
        assert torch.equal(frames, same_frames)
        assert frames.tolist() == [24, 18]
        assert torch.equal(output, layers[-1])

    def test_pipe_gets_plain_unbroken_lines(self, bench, tmp_path) -> None:
        """Names are shown as they are, brackets and all, however long."""
        folder = tmp_path / ("[bold]run:smile:[/x]" * 12)
        outcome = bench.compress("--out", folder).succeeded()
        assert outcome.err == ""
        assert all(character.isprintable() or character == "\n" for character in outcome.out)
        lines = outcome.out.splitlines()
        assert f'open it: l0prune.load("{folder}")' in lines
        assert any(line.endswith(f"run directory: {folder}") for line in lines)
        for stage, steps in (("joint", JOINT_STEPS), ("further", FURTHER_STEPS)):
            assert sum(re.match(rf"{stage} \d+/{steps} ", line) is not None for line in lines) == steps

    def test_python_makes_the_same_bits(self, finished, bench, tmp_path) -> None:
        report = l0prune.compress("speech", config=bench.settings, out=tmp_path / "run")
        assert (tmp_path / "run" / "model.safetensors").read_bytes() == finished.model
        times = {"run_directory", "stage_seconds", "step_seconds", "peak_memory_bytes"}
        for key in report.to_json().keys() - times:
            assert report.to_json()[key] == finished.report[key]

    def test_loaded_network_is_the_student(self, finished, bench, tmp_path) -> None:
        """Not just the same bits on disk: the module in memory and the one that is opened agree."""
        from l0prune_speech.plugin import SpeechPlugin

        plugin = SpeechPlugin()
        run = l0prune.resolve(plugin, l0prune.read_toml(bench.settings))
        task = plugin.prepare(l0prune.build(plugin.options, run.options), run)

        class Same(type(plugin)):
            def prepare(self, options, run):
                torch.manual_seed(run.seed)
                return task

        l0prune.compress(Same(), config=bench.settings, out=tmp_path / "run")
        waveforms = torch.randn(2, 8_000, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            inside = task.objective.student.eval()(waveforms)[0]
            assert torch.equal(inside, l0prune.load(tmp_path / "run")(waveforms)[0])

    def test_another_seed_makes_another_network(self, finished, bench, tmp_path) -> None:
        bench.compress("--out", tmp_path / "run", "--seed", 1).succeeded()
        assert (tmp_path / "run" / "model.safetensors").read_bytes() != finished.model

    def test_worker_decodes_the_same(self, finished, bench, tmp_path) -> None:
        bench.compress("--out", tmp_path / "run", config=bench.settings_with_worker).succeeded()
        assert (tmp_path / "run" / "model.safetensors").read_bytes() == finished.model


class TestSettings:
    def test_printed_settings_reproduce_themselves(self, bench, tmp_path, l0prune_call) -> None:
        flags = ["--target-sparsity", 0.5, "--units", "head, ffn", "--data", "clips é [x]", "--seed", 7]
        printed = bench.compress("--print-config", *flags).succeeded()
        assert printed.err == ""
        path = tmp_path / "printed.toml"
        path.write_text(printed.out, encoding="utf-8")
        again = l0prune_call("compress", "--plugin", "speech", "--config", path, "--print-config").succeeded()
        assert again.out == printed.out
        settings = l0prune.read_toml(path)
        assert (settings["target_sparsity"], settings["seed"]) == (0.5, 7)
        assert settings["speech"]["units"] == ["head", "ffn"]
        assert settings["speech"]["data"] == ["clips é [x]"]
        assert settings["joint"]["steps"] == JOINT_STEPS

    def test_printed_settings_as_json(self, bench) -> None:
        printed = bench.compress("--print-config", "--json").succeeded()
        assert json.loads(printed.out)["joint"]["steps"] == JOINT_STEPS

    @pytest.mark.parametrize("recipe", ["quick", "dphubert-base", "dphubert-large"])
    def test_recipes_resolve(self, recipe, l0prune_call) -> None:
        printed = l0prune_call("compress", "--plugin", "speech", "--recipe", recipe, "--print-config").succeeded()
        assert f'recipe = "{recipe}"' in printed.out

    def test_default_run_directory_is_the_first_free_one(self, bench, tmp_path, monkeypatch, toml) -> None:
        monkeypatch.chdir(tmp_path)
        config = toml(("steps = 10", "steps = 2"), ("steps = 6", "steps = 0"))
        for _ in range(2):
            bench.compress(config=config).succeeded()
        assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["speech-quick", "speech-quick-2"]


def signal_at(monkeypatch: pytest.MonkeyPatch, number: int, stage: str, step: int) -> None:
    """Send this process a signal while the step is being recorded."""
    shown = l0prune.adapters.terminal.TerminalObserver.record

    def record(self, record) -> None:
        shown(self, record)
        if (record.stage, record.step) == (stage, step):
            signal.raise_signal(number)

    monkeypatch.setattr(l0prune.adapters.terminal.TerminalObserver, "record", record)


class TestInterrupted:
    @pytest.mark.parametrize(
        ("number", "stage", "step"),
        [
            (signal.SIGINT, "joint", 1),
            (signal.SIGTERM, "joint", 4),
            (signal.SIGINT, "joint", JOINT_STEPS),
            (signal.SIGTERM, "further", 1),
            (signal.SIGINT, "further", 3),
            (signal.SIGINT, "further", FURTHER_STEPS),
        ],
    )
    def test_saves_and_goes_on_bit_for_bit(self, number, stage, step, bench, finished, tmp_path, monkeypatch) -> None:
        run = tmp_path / "run"
        with monkeypatch.context() as patch:
            signal_at(patch, number, stage, step)
            outcome = bench.compress("--out", run)
        assert outcome.code == 128 + number
        hint = f"go on with --resume --out {run}"
        assert outcome.err == f"l0prune: interrupted, state saved: {stage} step {step}; {hint}\n"
        position = step + (JOINT_STEPS if stage == "further" else 0)
        assert checkpoints(run)[-1] == f"step-{position:08d}.pt"
        assert not (run / "model.safetensors").exists()
        with pytest.raises(l0prune.RunError, match="finish it with --resume"):
            l0prune.load(run)

        bench.compress("--out", run, "--resume").succeeded()
        assert (run / "model.safetensors").read_bytes() == finished.model
        assert positions(run) == ALL_POSITIONS
        report = json.loads((run / "report.json").read_text())
        for key in ("distill_loss_before_removal", "distill_loss_final", "macs_before", "kept_units"):
            assert report[key] == finished.report[key]

    def test_twice(self, bench, finished, tmp_path, monkeypatch) -> None:
        run = tmp_path / "run"
        for extra, stage, step in (((), "joint", 3), (("--resume",), "joint", 6), (("--resume",), "further", 2)):
            with monkeypatch.context() as patch:
                signal_at(patch, signal.SIGINT, stage, step)
                assert bench.compress("--out", run, *extra).code == 130
        bench.compress("--out", run, "--resume").succeeded()
        assert (run / "model.safetensors").read_bytes() == finished.model
        assert positions(run) == ALL_POSITIONS

    def test_crash_before_the_first_checkpoint(self, bench, finished, tmp_path, monkeypatch) -> None:
        """Nothing was saved: the run begins anew, and no metrics are left from before."""
        run = tmp_path / "run"

        def crash(self, record) -> None:
            if record.step == 3:
                raise MemoryError

        with monkeypatch.context() as patch:
            patch.setattr(l0prune.adapters.terminal.TerminalObserver, "record", crash)
            with pytest.raises(MemoryError):
                bench.compress("--out", run)
        assert positions(run) == [1, 2, 3]
        assert checkpoints(run) == []
        bench.compress("--out", run, "--resume").succeeded()
        assert positions(run) == ALL_POSITIONS
        assert (run / "model.safetensors").read_bytes() == finished.model

    def test_before_training(self, bench, tmp_path, monkeypatch) -> None:
        """Ctrl-C while the teacher loads: nothing to save, nothing left behind, no traceback."""

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("l0prune_speech.task.load_teacher", interrupt)
        outcome = bench.compress("--out", tmp_path / "run")
        assert (outcome.code, outcome.out, outcome.err) == (130, "", "")
        assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def never_stopped(bench, tmp_path_factory) -> tuple[Path, bytes]:
    """Settings of a run that lasts a while, and the weights that it ends with."""
    folder = tmp_path_factory.mktemp("never_stopped")
    text = bench.settings_with_worker.read_text().replace("steps = 10", "steps = 40")
    config = folder / "settings.toml"
    config.write_text(text.replace("log_every = 1", "log_every = 1\ncheckpoint_minutes = 0.0"))
    bench.compress("--out", folder / "run", config=config).succeeded()
    return config, (folder / "run" / "model.safetensors").read_bytes()


class TestKilled:
    """Real processes and signals: to the whole group as a terminal sends them, or SIGKILL to the parent alone."""

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
    def test_ends_cleanly_and_goes_on(self, number, bench, forks, tmp_path, never_stopped) -> None:
        run = tmp_path / "run"
        config, weights = never_stopped
        log, errors = tmp_path / "log", tmp_path / "errors"
        process = forks.start(bench.arguments("--out", run, config=config), log, errors=errors, alone=True)
        wait_until(lambda: len(recorded(run)) >= 6, "the first steps")
        (os.kill if number == signal.SIGKILL else os.killpg)(process.number, number)
        code, err = process.wait(), errors.read_text()
        assert "Traceback" not in log.read_text() + err
        if number == signal.SIGKILL:
            assert code == -signal.SIGKILL
            # What such a death may leave: a torn line, a file half written.
            with (run / "metrics.jsonl").open("a") as file:
                file.write('{"position": 9999, "sta')
            (run / "checkpoints" / ".step-00000099.1.partial.pt").write_bytes(b"half")
        else:
            assert code == 128 + number, err
            assert err.count("\n") == 1, err
            assert err.startswith("l0prune: interrupted, state saved: joint step "), err
            assert err.endswith(f"go on with --resume --out {run}\n")
        wait_until(lambda: group_is_gone(process.number), "the decoding process to end")
        bench.compress("--out", run, "--resume", config=config).succeeded()
        assert positions(run) == list(range(1, 40 + FURTHER_STEPS + 1))
        assert len(checkpoints(run)) == 2
        assert not list(run.rglob(".*"))
        assert (run / "model.safetensors").read_bytes() == weights


class TestTeachersCache:
    def test_is_announced_filled_and_used_by_both_steps_and_later_runs(self, bench, tmp_path, toml) -> None:
        cache = tmp_path / "cache"
        epochs = ("workers = 0", "workers = 0\ncrop_epochs = 1")
        kept = ("workers = 0", f"workers = 0\ncrop_epochs = 1\ncache = {json.dumps(str(cache))}")
        without = toml(epochs, name="without.toml")
        bench.compress("--out", tmp_path / "plain", config=without).succeeded()
        first = bench.compress("--out", tmp_path / "first", config=toml(kept)).succeeded()
        (line,) = [line for line in first.out.splitlines() if line.startswith("teacher's cache: ")]
        assert line.startswith(f"teacher's cache: {cache}, at most 0.00 GB for 1 epochs"), line
        entries = {path: path.stat().st_mtime_ns for path in cache.glob("*/*.npz")}
        # More steps than an epoch has batches, and no entry but those.
        assert 0 < len(entries) < JOINT_STEPS
        bench.compress("--out", tmp_path / "second", config=toml(kept)).succeeded()
        assert {path: path.stat().st_mtime_ns for path in cache.glob("*/*.npz")} == entries
        models = {(tmp_path / run / "model.safetensors").read_bytes() for run in ("plain", "first", "second")}
        assert len(models) == 1

    def test_needs_crops_that_come_again(self, bench, tmp_path, toml) -> None:
        config = toml(("workers = 0", 'workers = 0\ncache = "cache"'))
        bench.compress("--out", tmp_path / "run", config=config).refused("crops that come again", "set crop_epochs")


class TestSpace:
    def test_too_little_disk_is_said_before_anything_is_made(self, bench, tmp_path, monkeypatch) -> None:
        monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000, total=2000))
        outcome = bench.compress("--out", tmp_path / "run")
        outcome.refused("too little disk for checkpoints", "free some space, choose another --out")
        assert not (tmp_path / "run").exists()


def recorded(run: Path) -> list[str]:
    metrics = run / "metrics.jsonl"
    return metrics.read_text().splitlines() if metrics.exists() else []


def wait_until(condition, what: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)


def group_is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False
