"""What lies in the current folder is not run: no process that a command starts takes modules from there."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from l0prune.support import python, safe_children

Call = Callable[..., Any]
PLANTED = ("torch", "numpy", "json", "l0prune", "l0prune_speech", "safetensors", "multiprocessing", "struct")


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with files that leave a mark when they are run."""
    folder = tmp_path / "here"
    folder.mkdir()
    for name in PLANTED:
        program = f"open({str(folder / 'marks')!r}, 'a').write('{name} ')\nraise SystemExit(3)"
        (folder / f"{name}.py").write_text(program)
    monkeypatch.chdir(folder)
    return folder


def test_the_files_would_be_run_otherwise(planted: Path) -> None:
    subprocess.run([sys.executable, "-c", "import numpy"], check=False)
    assert (planted / "marks").read_text() == "numpy "


@pytest.mark.slow
def test_every_command_leaves_them_alone(
    planted: Path, bench, finished, onnx_file: Path, labelled_sound: Path, quick_probes: None, l0prune_call: Call
) -> None:
    run = finished.folder
    l0prune_call("plugins").succeeded()
    l0prune_call("groups", "--plugin", "speech", "--teacher", bench.teacher).succeeded()
    bench.compress("--out", planted.parent / "run", "--steps", "4", config=bench.settings_with_worker).succeeded()
    l0prune_call("export", run, "--to", "torchscript", "--out", planted.parent / "student.pt").succeeded()
    backends = "onnxruntime,openvino" if find_spec("openvino") else "onnxruntime"
    for flags in ((run,), (onnx_file, "--backends", backends)):
        l0prune_call("bench", *flags, "--seconds", "0.02", "--lengths", "0.5").succeeded()
    short = ("--data", labelled_sound, "--tasks", "keyword", "--seeds", "1")
    l0prune_call("evaluate", run, *short, "--against", bench.teacher).succeeded()
    l0prune_call("report", run, "--out", planted.parent / "report.html").succeeded()
    assert not (planted / "marks").exists()


def test_the_command_itself_leaves_them_alone(planted: Path, finished) -> None:
    command = python("-W", "ignore", "-m", "l0prune_cli", "verify", str(finished.folder), "--json")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not (planted / "marks").exists()
    assert json.loads(done.stdout)[0]["checks"]


def test_other_children_inherit_it(planted: Path) -> None:
    """Pools, loaders of data and torch's compiler start processes of their own."""
    before = dict(os.environ)
    with safe_children():
        subprocess.run([sys.executable, "-c", "import numpy"], check=True)
    assert os.environ == before
    assert not (planted / "marks").exists()
