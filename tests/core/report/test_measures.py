"""The numbers of a run: its own scores among those of other models, whatever they are called."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from l0prune import write_report

MakeRun = Callable[..., Path]


def scores_of(run: Path) -> list[str]:
    (facts,) = write_report([run]).runs
    return [measure.text for measure in facts.measures if measure.name == "keyword, accuracy"]


def rows(models: Sequence[str]) -> list[dict[str, object]]:
    return [{"model": model, "task": "keyword", "metric": "accuracy", "mean": i} for i, model in enumerate(models, 1)]


@pytest.mark.parametrize(
    ("models", "own"),
    [
        (["embedded", "runs/a/run", "runs/b/run"], ["2"]),
        (["runs/b/run", "random:runs/a/run", "HERE/runs/a/run"], ["3"]),
        (["../b/run", "../a/run"], ["2"]),
        (["embedded", "run"], ["2"]),
        (["runs/b/other", "."], ["2"]),
        (["run", "a/run"], ["2"]),
        (["runs/b/run", "elsewhere/a/run", "random:run"], []),
    ],
)
def test_its_own_scores_wherever_the_evaluation_and_the_report_are_made(
    models: list[str], own: list[str], make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("runs/a/run", evaluation=rows([model.replace("HERE", str(tmp_path)) for model in models]))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert scores_of(run) == own


def test_a_teacher_called_as_the_folder_is_no_run(make_run: MakeRun) -> None:
    assert scores_of(make_run("embedded", evaluation=rows(["embedded", "."]))) == ["2"]


def test_a_run_that_was_moved(make_run: MakeRun, finished_report: dict[str, Any]) -> None:
    report = {**finished_report, "run_directory": "/old/runs/a"}
    run = make_run("archive/first", report=report, evaluation=rows(["embedded", "runs/a", "runs/b"]))
    assert scores_of(run) == ["2"]
