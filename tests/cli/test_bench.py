"""`l0prune bench`: runs, teachers, ONNX files and factories beside each other."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

FACTORY = """
import torch
def wide():
    return torch.nn.Linear(64, 512), torch.randn(4, 64)
def narrow():
    return torch.nn.Linear(64, 8), (torch.randn(4, 64),)
def nothing():
    return 3
def broken():
    return 1 / 0
def needy(width):
    return torch.nn.Linear(width, 8), torch.randn(4, width)
"""
Call = Callable[..., Any]
QUICK = ("--seconds", "0.05", "--lengths", "0.5,1")


@pytest.mark.usefixtures("rendered")
def test_a_run_beside_its_teacher_and_its_onnx_file(
    finished, onnx_file: Path, bench, tmp_path: Path, l0prune_call: Call
) -> None:
    file = onnx_file
    openvino = find_spec("openvino") is not None
    backends = "eager,onnxruntime,openvino" if openvino else "eager,onnxruntime"
    variants = ("--dtypes", "float32,int8", "--backends", backends, "--threads", "1")
    plot = tmp_path / "plot.png"
    done = l0prune_call(
        "bench", finished.folder, file, "--against", bench.teacher, *QUICK, *variants, "--plot", plot, "--json"
    )
    found = json.loads(done.succeeded().out)
    report = finished.report
    models = found["models"]
    assert list(models) == [str(bench.teacher), str(finished.folder), str(file)]
    assert models[str(bench.teacher)]["parameters"] == report["params_before"]
    assert models[str(finished.folder)]["parameters"] == report["params_after"]
    assert models[str(finished.folder)]["file_bytes"] == (finished.folder / "model.safetensors").stat().st_size
    assert models[str(finished.folder)]["load_seconds"] > 0
    assert models[str(finished.folder)]["peak_memory_bytes"] > 0
    assert models[str(file)]["parameters"] is None
    rows = found["rows"]
    assert {row["load"] for row in rows} == {"0.5 s", "1 s"}
    # Two models in two dtypes and two backends, and a file that has one backend, at two lengths; openvino has float32.
    assert len(rows) == 2 * (2 * 2 * 2 + 2 + 3 * openvino)
    assert all(row["latency_ms"] > 0 and row["speedup"]["low"] <= row["speedup"]["median"] for row in rows)
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("loaded_here")
def test_tables_for_people(finished, l0prune_call: Call) -> None:
    done = l0prune_call("bench", finished.folder, "embedded", *QUICK).succeeded()
    assert f"{finished.report['params_after']:,}" in done.out
    assert "times faster" in done.out
    assert "\x1b" not in done.out


def test_modules_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, l0prune_call: Call) -> None:
    (tmp_path / "some_models.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    done = l0prune_call("bench", "some_models:wide", "some_models:narrow", "--seconds", "0.02", "--json").succeeded()
    found = json.loads(done.out)
    assert [row["model"] for row in found["rows"]] == ["some_models:wide", "some_models:narrow"]
    assert found["models"]["some_models:narrow"]["parameters"] == 65 * 8
    l0prune_call("bench", "some_models:nothing").refused("factory returns something else")
    for factory, got in {"missing": "AttributeError", "broken": "ZeroDivisionError", "needy": "TypeError"}.items():
        l0prune_call("bench", f"some_models:{factory}").refused("factory makes nothing: some_models:", got)


@pytest.mark.usefixtures("loaded_here")
def test_wrong_requests_are_refused(bench, finished, l0prune_call: Call) -> None:
    for flags, message in {
        ("--plot", "."): "cannot write: .",
        ("--lengths", "1,0.01"): "too short for the model",
        ("--lengths", "0.01"): "0.025 s or more",
        ("--lengths", "one"): "not a list of numbers: --lengths",
        ("--lengths", "0"): "out of range: --lengths",
        ("--lengths", "nan"): "out of range: --lengths",
        ("--lengths", "inf"): "out of range: --lengths",
        ("--threads", "0.5"): "not a list of whole numbers: --threads",
        ("--batch-sizes", "1.5"): "not a list of whole numbers: --batch-sizes",
        ("--seconds", "nan"): "seconds out of range: --seconds",
        ("--seconds", "0"): "seconds out of range: --seconds",
        ("--dtypes", "float8"): "no such dtype: float8; did you mean 'float32'?",
        ("--backends", "onyxruntime"): "did you mean 'onnxruntime'?",
        ("--dtypes", "int8", "--backends", "openvino"): "int8 cannot be measured here: cpu",
        ("--against", "embeded"): "did you mean 'embedded'?",
    }.items():
        l0prune_call("bench", finished.folder, *flags).refused(message)
