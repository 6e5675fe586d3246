"""`l0prune compress --metric latency`: a time is the target, measured on the way and at the end."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import l0prune
from l0prune.measuring.count import macs
from l0prune.size.latency import model as latency_model


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test alone."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def quick(toml: Callable[..., Path]) -> Path:
    return toml(("steps = 10", "steps = 4"), ("steps = 6", "steps = 1"))


def test_from_end_to_end_and_resumed_with_the_same_figures(
    bench, quick: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing judges how busy the machine is.
    monkeypatch.setattr(latency_model, "POOR", float("inf"))
    run, flags = tmp_path / "run", ("--metric", "latency", "--target-speedup", "1.2")
    report = json.loads(bench.compress(*flags, "--out", run, "--json", config=quick).succeeded().out)
    assert report["metric"] == "latency"
    assert report["target_sparsity"] == pytest.approx(1 - 1 / 1.2)
    assert report["speedup"] > 0
    assert report["latency_before_ms"] > 0
    assert report["sparsity"] == pytest.approx(1 - report["latency_after_ms"] / report["latency_before_ms"])
    assert report["latency_model_error"] >= 0
    figures = (run / "latency.json").read_bytes()
    (stored,) = (cache / "l0prune").iterdir()
    assert stored.read_bytes() == figures
    # Nothing is measured again, neither by a resumed run nor by the next one.
    monkeypatch.setattr(latency_model, "Samples", None)
    stored.unlink()
    for name in ("report.json", "model.json", "model.safetensors"):
        (run / name).unlink()
    bench.compress(*flags, "--out", run, "--resume", config=quick).succeeded()
    assert (run / "latency.json").read_bytes() == figures


def test_multiply_accumulates_are_the_target_from_end_to_end(bench, quick: Path, tmp_path: Path) -> None:
    flags = ("--metric", "macs", "--target-sparsity", "0.5", "--out", tmp_path / "run", "--json")
    report = json.loads(bench.compress(*flags, config=quick).succeeded().out)
    student, ten_seconds = l0prune.load(tmp_path / "run"), torch.zeros(1, 160_000)
    assert report["macs_after"] == round(macs(lambda: student(ten_seconds)) / 10)
    assert report["sparsity"] == 1 - report["macs_after"] / report["macs_before"]
    # From below, to within the dearest unit: a channel of the second convolution.
    assert 0.5 <= report["sparsity"] < 0.6


def test_wrong_targets_are_refused(bench, quick: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    refused: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
        (("--target-speedup", "3"), ("target_speedup needs the metric latency",)),
        (("--metric", "latency", "--target-speedup", "0.5"), ("target_speedup out of range", "above 1")),
        (("--metric", "latency", "--target-ms", "0"), ("target_ms out of range",)),
        (("--metric", "latency", "--target-ms", "9", "--target-speedup", "2"), ("two targets",)),
        (
            ("--metric", "latency", "--target-sparsity", "0.5", "--target-ms", "9"),
            ("two targets", "--target-sparsity and --target-ms"),
        ),
        (
            ("--metric", "time"),
            (
                "unknown metric",
                "params, layer-params, macs, blocks, active-params, disk, disk-float16, disk-int8, latency, "
                "latency-int8 or memory",
            ),
        ),
    ]
    for flags, words in refused:
        bench.compress(*flags, "--out", out, config=quick).refused(*words)
    fast: Any = bench.compress("--metric", "latency", "--target-speedup", "1000", "--out", out, "--json", config=quick)
    assert (fast.code, fast.out) == (2, "")
    assert "latency target cannot be met" in fast.err.splitlines()[-1]
    assert "on this device" in fast.err.splitlines()[-1]
    assert not out.exists()


def test_the_last_table_shows_milliseconds_and_times_faster(finished) -> None:
    from l0prune.adapters.console import make_console, report_table

    times = {"latency_before_ms": 120.5, "latency_after_ms": 40.25, "speedup": 2.994}
    console = make_console()
    with console.capture() as captured:
        console.print(report_table(l0prune.workflows.CompressionReport(**{**finished.report, **times})))
    (line,) = (line for line in captured.get().splitlines() if "latency" in line)
    assert [cell.strip() for cell in line.strip("│").split("│")][1:] == ["120.5 ms", "40.25 ms", "2.99x faster"]
    assert "held-out loss at the end" in captured.get()
