"""Files of a run that are damaged: one line that names the file and what in it is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from l0prune import L0PruneError, RunError, write_report

ROW: dict[str, Any] = {"model": "a", "load": "1 s", "dtype": "float32", "backend": "eager", "latency_ms": 3.0}
METRICS: dict[str, Any] = {"position": 1, "stage": "joint", "step": 1, "steps": 2, "loss": 1.0, "parts": {}}

MakeRun = Callable[..., Path]


def refusal(run: Path) -> str:
    with pytest.raises(RunError) as caught:
        write_report([run])
    assert not (run / "report.html").exists()
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"latency_p95_ms": "soon"}, "latency_p95_ms"),
        ({"latency_ms": float("nan")}, "latency_ms"),
        ({"latency_ms": 10**400}, "latency_ms"),
        ({"speedup": {"median": None, "low": 1.0, "high": 2.0}}, "speedup"),
        ({"speedup": {"median": "2", "low": 1.0, "high": 2.0}}, "speedup"),
        ({"speedup": {"median": 2.0}}, "speedup"),
    ],
)
def test_a_benchmark(values: dict[str, Any], key: str, make_run: MakeRun) -> None:
    run = make_run(bench={"models": {}, "rows": [{**ROW, **values}]})
    assert f"bench.json, row 1: {key} (got " in refusal(run)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"params_before": 0}, "params_before"),
        ({"speedup": 2.0}, "latency_before_ms"),
        ({"speedup": 2.0, "latency_before_ms": 3.0, "latency_after_ms": None}, "latency_after_ms"),
        ({"distill_loss_final": float("inf")}, "distill_loss_final"),
        ({"stage_seconds": {"joint": float("nan")}}, "stage_seconds"),
        ({"run_directory": 3}, "run_directory"),
    ],
)
def test_a_report(values: dict[str, Any], key: str, make_run: MakeRun, finished_report: dict[str, Any]) -> None:
    assert f"report.json: {key} (got " in refusal(make_run(report={**finished_report, **values}))


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ('[joint]\nsteps = "many"', ", [joint]: steps (got 'many')"),
        ("[joint]\nsteps = 1979-05-27", ", [joint]: steps (got "),
        ("[digits]\nsince = 1979-05-27", ": digits.since (got 1979-05-27"),
        ("[digits]\ntimes = [[07:32:00]]", ": digits.times (got 07:32:00"),
    ],
)
def test_settings(settings: str, key: str, make_run: MakeRun) -> None:
    assert f"config.toml{key}" in refusal(make_run(settings=settings))


def test_lists_and_infinite_numbers_are_settings(make_run: MakeRun) -> None:
    run = make_run(settings='plugin = "digits"\n[joint]\nsteps = 3\nmost = inf\n[digits]\ndata = ["a", [true]]')
    (facts,) = write_report([run]).runs
    assert facts.settings["joint"]["most"] == float("inf")


@pytest.mark.parametrize("multipliers", [[0.5], [0.5] * 65])
def test_a_line_of_metrics(multipliers: list[float], make_run: MakeRun) -> None:
    run = make_run()
    (run / "metrics.jsonl").write_text(json.dumps({**METRICS, "multipliers": multipliers}) + "\n")
    assert "metrics.jsonl, line 1: multipliers (got [0.5" in refusal(run)


def test_json_without_an_end(make_run: MakeRun) -> None:
    run = make_run()
    (run / "evaluation.json").write_text("[" * 100_000)
    assert "not a JSON file" in refusal(run)


def test_names_that_cannot_be_shown_are_replaced(make_run: MakeRun, finished_report: dict[str, Any]) -> None:
    odd, shown = "a\x01b\ud800", "a\ufffdb\ufffd"
    layers = [{"model": odd, "layer": 0, "measures": {odd: 1.0}}]
    scores = [{"model": odd, "task": odd, "mean": 0.5}, {"model": "b", "task": odd, "mean": 0.25}]
    run = make_run(
        report={**finished_report, "teacher": odd},
        evaluation={"scores": scores, "layers": layers},
        bench={"models": {}, "rows": [{**ROW, "model": odd, "load": odd}]},
    )
    written = write_report([run])
    assert write_report(run).page == written.page
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.count(f"<figcaption>{shown}, ") == 1
    assert f'<th scope="row">{shown}</th>' in page
    assert [figure["alt"] for figure in written.figures if shown not in figure["alt"]] == []
    # Programs get what the files hold.
    assert json.loads(json.dumps(written.to_json()))["runs"][0]["teacher"] == odd


def test_a_folder_that_cannot_be_looked_into(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()

    def refuse(self: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(L0PruneError, match=r"cannot read: .*run \(got Permission denied\)"):
        write_report([run])
