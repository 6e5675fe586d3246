"""Models that were measured after a run: each by itself, whatever their paths have in common."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from l0prune import write_report

MODELS = ("runs/a/run", "runs/b/run", "random:/x/runs/a/run")
SHORT = ("a/run", "b/run", "random:run")


def alts(run: Path) -> dict[str, str]:
    return {figure["title"]: figure["alt"] for figure in write_report([run]).figures}


def test_models_whose_paths_end_alike_are_not_joined(make_run: Callable[..., Path]) -> None:
    scores = [{"model": model, "task": "keyword", "mean": i / 4} for i, model in enumerate(MODELS)]
    layers = [
        {"model": model, "layer": layer, "measures": {"cka": i + layer / 4}}
        for i, model in enumerate(MODELS)
        for layer in (0, 1)
    ]
    row: dict[str, Any] = {"load": "1 s", "dtype": "float32", "backend": "eager"}
    bench = {"models": {}, "rows": [{**row, "model": model, "latency_ms": i} for i, model in enumerate(MODELS)]}
    found = alts(make_run(evaluation={"scores": scores, "layers": layers}, bench=bench))
    assert found["keyword, "] == "keyword, : a/run 0; b/run 0.25; random:run 0.5."
    assert found["Layers beside the teacher's: cka"].endswith(
        "by layer: a/run from 0 to 0.25; b/run from 1 to 1.25; random:run from 2 to 2.25."
    )
    latencies = "; ".join(f"{name}, float32 {i}" for i, name in enumerate(SHORT))
    assert found["Latency in ms, 1 s"] == f"Latency in ms, 1 s: {latencies}."
