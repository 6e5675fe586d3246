"""Models that were measured after a run: each by itself, whatever their paths have in common."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from l0prune import RunError, write_report

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


def test_a_latency_figure_is_of_one_batch_size_and_number_of_threads(make_run: Callable[..., Path]) -> None:
    rows = [
        {"model": "a", "load": load, "dtype": "float32", "backend": "eager", "batch": batch, "threads": threads}
        for load in ("1 s", "2 s")
        for batch in (1, 4)
        for threads in (1, 2)
    ]
    measured = [{**row, "latency_ms": number} for number, row in enumerate(rows, start=1)]
    found = alts(make_run(bench={"models": {}, "rows": measured}))
    title = "Latency in ms, batch 1, 1 thread"
    assert found[title] == f"{title}, from 1 s to 2 s: a, float32 from 1 to 5."


def test_what_is_compared_has_a_figure_of_its_own(make_run: Callable[..., Path]) -> None:
    ratio = {"median": 2.0, "low": 1.5, "high": 2.5}
    row = {"load": "1 s", "dtype": "int8", "backend": "eager", "latency_ms": 1, "speedup": ratio}
    models = {"x/dense": {"parameters": 20}, "x/small": {"parameters": None}}
    bench = {"models": models, "rows": [{**row, "model": model} for model in models], "against": "x/dense"}
    title = "Times faster than dense, 1 s"
    assert alts(make_run(bench=bench))[title] == f"{title}: dense, int8 2.00."


@pytest.mark.parametrize(
    ("file", "content", "where"),
    [
        ("bench", {"models": {"a": 1}, "rows": []}, "bench.json"),
        ("bench", {"models": {"a": {"parameters": "many"}}, "rows": []}, "bench.json, model a: parameters"),
        ("evaluation", {"tasks": {"t": {"chance": "some"}}, "scores": []}, "evaluation.json, task t: chance"),
        ("report", {"kinds": {"head": {"title": "Heads"}}}, "report.json: kinds"),
    ],
)
def test_what_is_damaged_is_named(
    make_run: Callable[..., Path], finished_report: dict[str, Any], file: str, content: Any, where: str
) -> None:
    content = finished_report | content if file == "report" else content
    with pytest.raises(RunError, match=re.escape(where)):
        write_report([make_run(**{file: content})])


def test_a_guess_has_a_line_and_the_direction_is_said(make_run: Callable[..., Path]) -> None:
    tasks = {"keyword": {"metric": "accuracy", "higher_is_better": True, "chance": 0.05}}
    found = alts(make_run(evaluation={"tasks": tasks, "scores": [{"model": "a", "task": "keyword", "mean": 0.5}]}))
    title = "keyword, accuracy, higher is better"
    assert found[title] == f"{title}: a 0.5. Chance is 0.05."


def test_what_is_not_said_of_a_load_is_left_out(make_run: Callable[..., Path]) -> None:
    row = {"model": "a", "load": "1 s", "dtype": "float32", "backend": "eager", "latency_ms": 1, "threads": 1}
    assert "Latency in ms, 1 s, 1 thread" in alts(make_run(bench={"models": {}, "rows": [row]}))


def test_layers_are_shown_where_there_are_no_scores(make_run: Callable[..., Path]) -> None:
    layers = [{"model": "a", "layer": layer, "measures": {"cka": layer / 4}} for layer in (0, 1)]
    run = make_run(evaluation={"scores": [], "layers": layers})
    assert "Layers beside the teacher's: cka" in alts(run)
    assert "<h2>Probes</h2>" in Path(write_report([run]).page).read_text(encoding="utf-8")


def test_figures_of_before_go_and_pictures_of_others_stay(make_run: Callable[..., Path]) -> None:
    layers = [{"model": "a", "layer": layer, "measures": {"cka": layer / 4}} for layer in (0, 1)]
    run = make_run(evaluation={"scores": [], "layers": layers})
    (old,) = (Path(f["png"]) for f in write_report([run]).figures if "cka" in f["title"])
    (run / "evaluation.json").unlink()
    mine = old.with_name("mine.png")
    mine.write_bytes(b"a picture")
    write_report([run])
    assert not old.exists()
    assert mine.exists()
