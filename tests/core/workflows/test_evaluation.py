"""The seam of evaluation: what reaches a plugin, and what its results become."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from l0prune import (
    ConfigError,
    Evaluation,
    EvaluationSettings,
    EvaluationTask,
    LayerComparison,
    RunError,
    Score,
    draw_evaluation,
    evaluate,
)
from l0prune.workflows import evaluation

TASK = EvaluationTask(metric="accuracy", higher_is_better=True, description="guess")


class Guesses:
    """A plugin whose models score by the length of their names."""

    tasks = {"guess": TASK, "doubt": TASK}  # noqa: RUF012

    def evaluate(self, models: Sequence[str], settings: EvaluationSettings, note: Callable[[str], None]) -> Evaluation:
        note("guessing")
        scores = [Score(model=model, task="guess", values=(len(model) / 10, 0.5)) for model in models]
        layers = [
            LayerComparison(model=model, layer=layer, teacher_layer=layer, measures={"cka": 0.5, "l1": None})
            for model in models
            for layer in range(2)
        ]
        facts = {"metric": "accuracy", "higher_is_better": True, "chance": 0.1}
        return Evaluation(
            models={model: {"parameters": 3} for model in models},
            tasks={"guess": facts},
            scores=scores,
            layers=layers,
            against=settings.against,
            seeds=settings.seeds,
        )


@pytest.fixture(autouse=True)
def _guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "get_plugin", lambda _name: Guesses())


def test_a_programs_logger_hears_how_far_it_is(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="l0prune"):
        evaluate(["other"], plugin="guesses")
    assert [(record.name, record.getMessage()) for record in caplog.records] == [("l0prune", "guessing")]


def test_a_run_is_held_against_its_teacher(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "report.json").write_text(json.dumps({"teacher": "big"}))
    assert list(evaluate(["other", run], plugin="guesses").models) == ["big", "other", str(run)]
    assert evaluate([run], plugin="guesses").against == "big"
    chosen = EvaluationSettings(against="other")
    assert list(evaluate([run, "other"], plugin="guesses", settings=chosen).models) == ["other", str(run)]
    assert evaluate(["other"], plugin="guesses").against is None


def test_a_teacher_that_is_no_longer_there_is_told_from_a_model_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Misses(Guesses):
        def evaluate(self, models: Sequence[str], settings: EvaluationSettings, note: object) -> Evaluation:
            raise ConfigError("no such teacher", where=models[0], hint="choose one of these")

    monkeypatch.setattr(evaluation, "get_plugin", lambda _name: Misses())
    (tmp_path / "report.json").write_text(json.dumps({"teacher": "moved"}))
    with pytest.raises(ConfigError, match=r"no such teacher: moved; .*name it where it is now.*--against"):
        evaluate([tmp_path], plugin="guesses")
    for settings in (EvaluationSettings(), EvaluationSettings(against="moved")):
        with pytest.raises(ConfigError, match="no such teacher: moved; choose one of these"):
            evaluate(["moved", tmp_path], plugin="guesses", settings=settings)


def test_notes_reach_the_caller() -> None:
    told: list[str] = []
    evaluate(["one"], plugin="guesses", note=told.append)
    assert told == ["guessing"]


def test_mean_and_deviation_over_seeds() -> None:
    score = Score(model="m", task="t", values=(0.1, 0.2, 0.6))
    assert score.mean == pytest.approx(0.3)
    assert score.deviation == pytest.approx(0.07**0.5)
    assert Score(model="m", task="t", values=(0.1,)).deviation is None
    found = evaluate(["four"], plugin="guesses").to_json()
    assert json.loads(json.dumps(found)) == found
    assert found["scores"][0]["mean"] == pytest.approx(0.45)
    assert found["versions"]["torch"]


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="no such task: gess; did you mean 'guess'"):
        evaluate(["one"], plugin="guesses", settings=EvaluationSettings(tasks=("gess",)))
    with pytest.raises(ConfigError, match="no seeds"):
        EvaluationSettings(seeds=())
    for minutes in (math.nan, math.inf, 0.0, -1.0):
        with pytest.raises(ConfigError, match=r"max_minutes out of range .*expected a finite number above 0"):
            EvaluationSettings(max_minutes=minutes)


@pytest.mark.parametrize("content", ["{}", "[]", '{"teacher": ["big"]}', "3"])
def test_a_run_whose_report_names_no_teacher_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(RunError, match=rf"damaged file: {tmp_path}/report.json .*expected an object with .*teacher"):
        evaluate([tmp_path], plugin="guesses")


def test_a_name_too_long_for_a_file_reaches_the_plugin() -> None:
    name = "m" * 300
    assert list(evaluate([name], plugin="guesses").models) == [name]


@pytest.mark.usefixtures("rendered")
def test_the_picture_replaces_an_older_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_text("older")
    draw_evaluation(evaluate(["one", "three"], plugin="guesses"), path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in tmp_path.iterdir()] == ["picture.png"]


FOLDER = "/home/somebody/experiments/with/long/names/" * 3
LONG = [
    f"{FOLDER}full/seed-0/run",
    f"{FOLDER}full/seed-1/run",
    f"random:{FOLDER}full/seed-0/run",
    "of-a-kind-" * 12,
    "_$a$",
]
CROWD = [f"{FOLDER}{name}/seed-{seed}" for name in ("full", "$x$ 模型", "_a\x01\ud800b\n") for seed in range(7)]


@pytest.mark.parametrize("models", [LONG[:1], LONG, ["$a_{b$", "$\\c$"], CROWD], ids=["one", "five", "odd", "crowd"])
def test_long_and_odd_names_leave_room_for_what_is_drawn(models: list[str], tmp_path: Path, drawn: list[Any]) -> None:
    # A warning of the layout is an error here, as all are.
    settings = EvaluationSettings(against=models[0])
    draw_evaluation(evaluate(models, plugin="guesses", settings=settings), tmp_path / "picture.png")
    (figure,) = drawn
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert len(names) == len(models) + 1
    bars = figure.axes[0]
    assert len({text.get_text() for text in bars.get_yticklabels()}) == len(models)
    assert all(axes.get_legend() is None for axes in figure.axes)
    assert len(figure.axes[1].get_lines()) == len(models)
