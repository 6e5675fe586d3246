"""`l0prune.measure`: a row for each variant, figures that belong together, one line for what cannot be measured."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import l0prune
from l0prune import ConfigError, Contender, DataError, Load, measure
from l0prune.measuring.machine import has_fast_bfloat16
from l0prune.measuring.onnx_files import open_onnx
from l0prune.measuring.openvino_process import PRECISIONS, OpenVinoProcess
from l0prune.measuring.variants import BACKENDS, DTYPES
from l0prune.report.figures import bench as bench_figure

CPU = torch.device("cpu")
# To look for it is not to import it: its own import would report to its makers.
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")


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


def test_versions_are_the_cores_and_those_that_contenders_name() -> None:
    plain = measure({"a": network(16)}, X, seconds=0.01).versions
    assert plain.keys() == {"python", "l0prune", "torch", "torch-pruning", "numpy", "safetensors"}
    contenders = {"a": network(16), "b": Contender(module=network(16), packages=("torchaudio",))}
    assert measure(contenders, X, seconds=0.01).versions.keys() == {*plain, "torchaudio"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The narrow network's ONNX file."""
    path, frames = tmp_path / "a.onnx", ({0: torch.export.Dim.DYNAMIC},)
    program = torch.onnx.export(
        network(16).eval(), (X,), dynamo=True, verbose=False, input_names=["x"], dynamic_shapes=frames
    )
    program.save(str(path))
    return path


def test_onnxruntime_runs_a_models_file(path: Path) -> None:
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
    assert "onnxruntime" in found.versions
    assert "openvino" not in found.versions


@needs_openvino
@pytest.mark.parametrize("threads", [1, 2])
def test_openvino_agrees_with_onnxruntime(path: Path, threads: int) -> None:
    expected = open_onnx(path, "onnxruntime", "float32", CPU, threads)
    found = {dtype: OpenVinoProcess(path, dtype, threads) for dtype in PRECISIONS}
    assert list(found["float32"].inputs) == list(expected.inputs) == ["x"]
    for frames in (16, 5):
        feeds = {"x": torch.randn(frames, 64).numpy()}
        output: Any = expected.prepare(feeds)()
        assert output.shape == (frames, 8)
        differences = {
            dtype: abs(process.output(feeds) - output).max() / abs(output).max() for dtype, process in found.items()
        }
        assert differences["float32"] < 1e-4
        # The eight bits of bfloat16 can be seen.
        assert not has_fast_bfloat16(CPU) or 1e-4 < differences["bfloat16"] < 0.05


@needs_openvino
def test_openvino_has_its_rows(path: Path) -> None:
    models = {"a": Contender(module=network(16), onnx=lambda: path), "file": Contender(onnx=lambda: path)}
    found = measure(models, X, backends=("eager", "openvino"), dtypes=("float32", "int8"), threads=(1,), seconds=0.01)
    assert [(row.model, row.dtype, row.backend) for row in found.rows] == [
        ("a", "float32", "eager"),
        ("a", "int8", "eager"),
        ("a", "float32", "openvino"),
        ("file", "float32", "openvino"),
    ]
    assert "openvino" in found.versions
    # It stays in processes of its own.
    assert "openvino" not in sys.modules


@needs_openvino
def test_openvino_computes_with_the_inputs_it_was_given_first(path: Path) -> None:
    process = OpenVinoProcess(path, "float32", 1)
    short, long = (process.prepare({"x": torch.randn(frames, 64).numpy()}) for frames in (5, 16))
    for run in (short, long, short):
        run()
    wrong = process.prepare({"x": torch.randn(5, 3).numpy()})
    with pytest.raises(RuntimeError, match="shape"):
        wrong()
    # A refusal is not its end.
    short()


@pytest.mark.parametrize("backend", ["onnxruntime", pytest.param("openvino", marks=needs_openvino)])
def test_what_a_backend_cannot_take_is_said(tmp_path: Path, backend: str) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no graph")
    with pytest.raises(ConfigError, match=f"{backend} cannot take the file: {broken}"):
        measure({"file": Contender(onnx=lambda: broken)}, X, backends=(backend,))


@needs_openvino
def test_openvino_ends_with_its_last_user(path: Path) -> None:
    process = OpenVinoProcess(path, "float32", 1)
    child = process.process
    del process
    assert child.wait(timeout=30) == 0
    process = OpenVinoProcess(path, "float32", 1)
    process.process.kill()
    with pytest.raises(RuntimeError, match="OpenVINO's process ended with status -9"):
        process.prepare({"x": X.numpy()})


@needs_openvino
def test_openvino_reports_nothing_to_its_makers() -> None:
    program = (
        "import sys; from l0prune.measuring.openvino_process import import_openvino; import_openvino();"
        "assert 'openvino' in sys.modules and sys.modules['openvino_telemetry'] is None"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("dtypes", [("bfloat16",), ("float32", "bfloat16")])
def test_a_cpu_without_bfloat16_has_none_in_openvino(dtypes: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("l0prune.measuring.variants.has_fast_bfloat16", lambda device: False)
    with pytest.raises(ConfigError, match=r"bfloat16 cannot be measured here: cpu; .* openvino where the CPU"):
        measure({"a": network(16)}, X, dtypes=dtypes, backends=("onnxruntime", "openvino"))


def test_every_variant_has_a_look_of_its_own() -> None:
    assert set(bench_figure._MARKERS) == set(DTYPES)
    assert set(bench_figure._LINES) == set(bench_figure._FILLS) == set(BACKENDS)
    for looks in (bench_figure._MARKERS, bench_figure._LINES, bench_figure._FILLS):
        assert len(set(looks.values())) == len(looks)


@pytest.mark.usefixtures("rendered")
def test_a_picture_is_drawn(tmp_path: Path) -> None:
    loads = [Load(name=f"{n} s", inputs=(X,), seconds=float(n)) for n in (1, 2)]
    found = measure({"wide": network(64), "narrow": network(16)}, loads, seconds=0.01)
    l0prune.draw_measurement(found, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_long_and_odd_names_leave_room_for_what_is_drawn(tmp_path: Path, drawn: list[Any]) -> None:
    folder = "/home/somebody/experiments/with/long/names/" * 3
    names = [f"{folder}{name}" for name in ("a/run", "b/run", "$x_{$", "of-a-kind-" * 12)]
    found = measure({name: network(16) for name in names}, X, dtypes=("float32", "int8"), seconds=0.01)
    l0prune.draw_measurement(found, tmp_path / "plot.png")
    (figure,) = drawn
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert len(labels) == len(set(labels)) == 2 * len(names)
    assert {"a/run, float32", "b/run, int8", "$x_{$, float32"} < set(labels)


def test_titles_stand_within_the_picture(tmp_path: Path, drawn: list[Any]) -> None:
    names = ("runs/mine", "my_code:network_and_inputs")
    found = measure({name: network(16) for name in names}, X, against="runs/mine", seconds=0.01)
    l0prune.draw_measurement(found, tmp_path / "plot.png")
    (figure,) = drawn
    figure.draw_without_rendering()  # places at the figure's own resolution, not at that of the file
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert any("Times faster than mine" in axes.get_title(loc="left") for axes in shown)
    for axes in shown:
        # The second panel ends where the picture does.
        assert axes._left_title.get_window_extent().x1 <= figure.bbox.x1


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
    with pytest.raises(ConfigError, match="no backend to measure"):
        measure(models, X, backends=())
    for dtype, backend in (("int8", "compile"), ("int8", "openvino"), ("bfloat16", "onnxruntime")):
        with pytest.raises(ConfigError, match=f"{dtype} cannot be measured here: cpu; {dtype} is measured with"):
            measure(models, X, dtypes=("float32", dtype), backends=(backend,))
    with pytest.raises(ConfigError, match="openvino cannot be measured here: cuda; it is measured on the CPU"):
        measure(models, X, backends=("openvino",), device="cuda")
    for backend, extra in (("onnxruntime", "onnx"), ("openvino", "openvino")):
        monkeypatch.setitem(sys.modules, backend, None)
        with pytest.raises(ConfigError, match=rf"backend is missing: {backend}; pip install 'l0prune\[{extra}\]'"):
            measure(models, X, backends=(backend,))
