"""`l0prune.measure`: a row for each variant, figures that belong together, one line for what cannot be measured."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import l0prune
from l0prune import ConfigError, Contender, DataError, Load, measure


def network(width: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 8))


X = torch.randn(16, 64)


def test_a_row_for_each_load_thread_model_and_dtype() -> None:
    loads = [Load(name=f"{n}", inputs=(torch.randn(n, 64),), seconds=2.0, batch=n) for n in (1, 4)]
    found = measure(
        {"wide": network(512), "narrow": network(16)}, loads, threads=(1, 2), dtypes=("float32", "int8"), seconds=0.01
    )
    keys = {(row.load, row.threads, row.model, row.dtype) for row in found.rows}
    assert keys == {(n, t, m, d) for n in "14" for t in (1, 2) for m in ("wide", "narrow") for d in ("float32", "int8")}
    assert len(found.rows) == len(keys)
    assert found.against == "wide"
    for row in found.rows:
        audio = 2.0 * row.batch
        assert row.real_time_factor == pytest.approx(row.latency_ms / 1000 / audio)
        assert row.throughput == pytest.approx(1 / row.real_time_factor)
        assert row.latency_p95_ms >= row.latency_ms > 0
        if (row.model, row.dtype) == ("wide", "float32"):
            assert row.speedup.median == 1
    sizes = [sum(p.numel() for p in network(width).parameters()) for width in (512, 16)]
    assert [found.models[name]["parameters"] for name in ("wide", "narrow")] == sizes
    assert found.models["wide"]["macs"] == 512 * 72
    json.dumps(found.to_json())


def test_the_number_of_threads_and_the_models_are_left_as_they_were() -> None:
    before, model = torch.get_num_threads(), network(16).train()
    weight = model[0].weight.clone()
    measure({"a": model}, X, threads=(1,), dtypes=("bfloat16",), seconds=0.01)
    assert torch.get_num_threads() == before
    assert model[0].weight.dtype is torch.float32
    assert torch.equal(model[0].weight, weight)
    assert model.training


def test_the_model_compared_with_is_measured_in_float32_whatever_was_asked() -> None:
    found = measure({"a": network(64), "b": network(16)}, X, against="b", dtypes=("bfloat16",), seconds=0.01)
    assert ("b", "float32", "eager") in {(row.model, row.dtype, row.backend) for row in found.rows}
    assert all(row.speedup is not None for row in found.rows)


def test_onnxruntime_runs_a_models_file(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    torch.onnx.export(network(16).eval(), (X,), dynamo=True, verbose=False, input_names=["x"]).save(str(path))
    contenders = {"module": Contender(module=network(16), onnx=lambda: path), "file": Contender(onnx=lambda: path)}
    found = measure(contenders, X, backends=("eager", "onnxruntime"), dtypes=("float32", "int8"), seconds=0.01)
    variants = {(row.model, row.dtype, row.backend) for row in found.rows}
    assert {
        ("module", "int8", "eager"),
        ("module", "int8", "onnxruntime"),
        ("file", "float32", "onnxruntime"),
    } <= variants
    assert not any(model == "file" and backend == "eager" for model, _, backend in variants)
    assert found.models["file"]["parameters"] is None


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    loads = [Load(name=f"{n} s", inputs=(X,), seconds=float(n)) for n in (1, 2)]
    found = measure({"wide": network(64), "narrow": network(16)}, loads, seconds=0.01)
    l0prune.draw_measurement(found, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_measured_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    models = {"a": network(16)}
    with pytest.raises(ConfigError, match="no such dtype: bfloat; did you mean 'bfloat16'"):
        measure(models, X, dtypes=("bfloat",))
    with pytest.raises(ConfigError, match="no such backend: eagre; did you mean 'eager'"):
        measure(models, X, backends=("eagre",))
    with pytest.raises(ConfigError, match="no such model to compare with: c"):
        measure(models, X, against="c")
    with pytest.raises(DataError, match=r"model cannot run in float32 with the eager backend: a, example inputs"):
        measure(models, torch.randn(2, 3))
    short = Contender(module=network(16), facts={"shortest_seconds": 0.5})
    with pytest.raises(DataError, match=r"too short for the model: a, 0\.1 s \(expected 0\.5 s or more\)"):
        measure({"a": short}, [Load(name="0.1 s", inputs=(X,), seconds=0.1)])
    with pytest.raises(ConfigError, match="model is an ONNX file: a"):
        measure({"a": Contender(onnx=lambda: tmp_path)}, X)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"backend is missing: onnxruntime; pip install 'l0prune\[onnx\]'"):
        measure(models, X, backends=("onnxruntime",))
