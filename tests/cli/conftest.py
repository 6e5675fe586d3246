"""A tiny teacher, a few short clips, and the command line run in this process."""

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from command_line import Outcome, call
from forked_runs import Forks
from safetensors.torch import save_file
from tiny_teacher import TEACHER

JOINT_STEPS, FURTHER_STEPS = 10, 6
SETTINGS = f"""
log_every = 1
precision = "float32"
device = "cpu"
[joint]
steps = {JOINT_STEPS}
warmup_steps = 2
[further]
steps = {FURTHER_STEPS}
warmup_steps = 0
[controller]
warmup_steps = 4
learning_rate = 0.3
[speech]
teacher = TEACHER
data = [CLIPS]
batch_seconds = 5.0
workers = WORKERS
"""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What the tests of the command line work on."""

    teacher: Path
    clips: Path
    settings: Path
    """Decodes in the training process."""
    settings_with_worker: Path

    def compress(self, *arguments: object, config: Path | None = None) -> Outcome:
        """`l0prune compress` of the tiny teacher."""
        return call(*self.arguments(*arguments, config=config))

    def arguments(self, *arguments: object, config: Path | None = None) -> list[object]:
        return ["compress", "--plugin", "speech", "--config", config or self.settings, *arguments]


@pytest.fixture(scope="session")
def l0prune_call() -> Callable[..., Outcome]:
    return call


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    from l0prune_speech.encoder.modules import build_encoder

    folder = tmp_path_factory.mktemp("bench")
    made = Bench(
        teacher=folder / "teacher.safetensors",
        clips=folder / "clips",
        settings=folder / "settings.toml",
        settings_with_worker=folder / "with_worker.toml",
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = {name: tensor.contiguous() for name, tensor in build_encoder(TEACHER).state_dict().items()}
    metadata = {"format": "l0prune-speech-teacher", "config": json.dumps(TEACHER), "normalize_waveform": "false"}
    save_file(weights, made.teacher, metadata=metadata)
    made.clips.mkdir()
    noise = np.random.default_rng(0)
    for number in range(6):
        samples = round(16_000 * (2 + 0.3 * number))
        soundfile.write(made.clips / f"clip{number}.wav", 0.1 * noise.standard_normal(samples), 16_000)
    filled = SETTINGS.replace("TEACHER", json.dumps(str(made.teacher))).replace("CLIPS", json.dumps(str(made.clips)))
    made.settings.write_text(filled.replace("WORKERS", "0"))
    made.settings_with_worker.write_text(filled.replace("WORKERS", "1"))
    return made


@dataclass(frozen=True, kw_only=True)
class Finished:
    """An uninterrupted run."""

    folder: Path
    outcome: Outcome

    @property
    def report(self) -> dict[str, Any]:
        return json.loads((self.folder / "report.json").read_text())

    @property
    def model(self) -> bytes:
        return (self.folder / "model.safetensors").read_bytes()


@pytest.fixture(scope="session")
def finished(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("finished") / "run"
    return Finished(folder=folder, outcome=bench.compress("--out", folder, "--json").succeeded())


@pytest.fixture(scope="session")
def onnx_file(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student of the uninterrupted run, exported."""
    file = tmp_path_factory.mktemp("exported") / "student.onnx"
    call("export", finished.folder, "--to", "onnx", "--out", file).succeeded()
    return file


@pytest.fixture(scope="session")
def _interrupted(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the settings and of the run that `interrupted` copies."""
    import l0prune.adapters.terminal

    def stop(_self: Any, record: Any) -> None:
        if record.step == 3:
            signal.raise_signal(signal.SIGINT)

    folder = tmp_path_factory.mktemp("interrupted")
    (folder / "often.toml").write_text("checkpoint_minutes = 0.0\n" + bench.settings.read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(l0prune.adapters.terminal.TerminalObserver, "record", stop)
        assert bench.compress("--out", folder / "run", config=folder / "often.toml").code == 130
    assert len(list((folder / "run" / "checkpoints").iterdir())) == 2
    return folder


@pytest.fixture
def interrupted(_interrupted: Path, tmp_path: Path) -> Path:
    """A run that stopped after three steps, with a checkpoint of each of the last two; `often.toml` lies beside it."""
    shutil.copy(_interrupted / "often.toml", tmp_path)
    return Path(shutil.copytree(_interrupted / "run", tmp_path / "interrupted"))


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Starts processes that run `l0prune`; this one of pytest may have threads and cannot be forked."""
    server = Forks()
    yield server
    server.close()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where a run would be."""
    return tmp_path / "run"


@pytest.fixture
def quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes of whole clips train for a few steps: what commands say of scores is the same, whatever they are."""
    from l0prune_speech.probes import clips

    monkeypatch.setattr(clips, "_SCHEDULE", replace(clips._SCHEDULE, steps=20))


@pytest.fixture
def loaded_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """`l0prune bench` begins no process to load an encoder in: what it would find there is given."""
    from l0prune_speech.deploy import benching

    found = {"load_seconds": 0.5, "peak_memory_bytes": 2_000_000}
    monkeypatch.setattr(benching, "_in_a_fresh_process", lambda _source, _child: found)


@pytest.fixture
def toml(tmp_path: Path, bench: Bench) -> Callable[..., Path]:
    """Writes the settings with lines of the file replaced: toml(("steps = 10", "steps = 3"), ...)."""

    def write(*changes: tuple[str, str], name: str = "changed.toml", base: Path | None = None) -> Path:
        text = (base or bench.settings).read_text()
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        path = tmp_path / name
        path.write_text(text)
        return path

    return write
