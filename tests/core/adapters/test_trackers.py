"""Trackers hear settings, curves and the report; one that is missing or fails stops no run, and warns once."""

import json
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from perceptron_task import make_task

import l0prune
from l0prune.adapters.tensorboard import TensorBoardObserver
from l0prune.adapters.tracking import TrackingObserver

SETTINGS: dict[str, Any] = {
    "target_sparsity": 0.5,
    "device": "cpu",
    "log_every": 2,
    "joint": {"steps": 6, "learning_rate": 1e-2},
    "further": {"steps": 4, "learning_rate": 1e-2},
    "controller": {"kind": "projected", "warmup_steps": 4},
}


class Heard(TrackingObserver):
    """Remembers what it was told, or fails."""

    library = "heard"

    def __init__(self, *, fails: str = "", **more: Any) -> None:
        super().__init__(**more)
        self.fails, self.told = fails, []

    def _hear(self, what: str, *facts: Any) -> None:
        self.told.append((what, *facts))
        if what == self.fails:
            raise ConnectionError("nobody\nanswers")

    def open(self, settings: Mapping[str, Any], folder: Path) -> None:
        self._hear("open", settings, folder)

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._hear("log", values, step)

    def close(self, summary: Mapping[str, float]) -> None:
        self._hear("close", summary)


def run(observer: l0prune.Observer, folder: Path) -> Any:
    return l0prune.compress(make_task(), settings=SETTINGS, out=folder, observer=observer)


def test_a_tracker_hears_settings_curves_of_both_stages_and_the_report(tmp_path: Path) -> None:
    heard = Heard()
    report = run(heard, tmp_path / "run")
    opened, *logged, closed = heard.told
    assert (opened[1]["joint.steps"], opened[2]) == (6, tmp_path / "run")
    assert [entry[2] for entry in logged] == [1, 2, 4, 6, 7, 8, 10]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [entry[1][f"{row['stage']}/loss"] for entry, row in zip(logged, rows, strict=True)] == [
        row["loss"] for row in rows
    ]
    assert "joint/sparsity" in logged[0][1]
    assert closed[1]["params_after"] == report.params_after


@pytest.mark.parametrize(("fails", "calls"), [("open", 1), ("log", 2), ("close", 9)])
def test_one_that_cannot_be_reached_warns_once_and_the_run_goes_on(fails: str, calls: int, tmp_path: Path) -> None:
    heard = Heard(fails=fails)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = run(heard, tmp_path / "run")
    mine = [str(one.message) for one in caught if "heard hears" in str(one.message)]
    assert mine == ["heard hears nothing more of this run, which goes on (ConnectionError: nobody answers)"]
    assert len(heard.told) == calls
    assert Path(report.run_directory, "report.json").is_file()


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_one_that_is_not_installed_warns_once_and_the_run_goes_on(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = __import__(f"l0prune.adapters.{name}", fromlist=["x"])
    cls = next(c for n, c in vars(module).items() if n.endswith("Observer") and c.__module__ == module.__name__)
    for missing in (name, "torch.utils.tensorboard", "mlflow.tracking"):
        monkeypatch.setitem(sys.modules, missing, None)  # type: ignore[arg-type]
    observer: Any = cls() if name == "tensorboard" else cls("project")
    with pytest.warns(UserWarning, match=f"{name} hears nothing more of this run.*(Module|Import)") as caught:
        observer.prepared(*stand_ins(tmp_path))
    assert len(caught) == 1


def stand_ins(folder: Path) -> Any:
    from l0prune.gates import GatedModel

    task = make_task()
    gated = GatedModel(task.objective.student, task.groups, target_sparsity=0.5)
    return task, gated, l0prune.RunConfig(plugin="own"), folder


class Recorder(ModuleType):
    """In the place of a library: remembers calls."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[Any, ...]] = []

    def init(self, **given: Any) -> "Recorder":
        self.calls.append(("init", given))
        return self

    def log(self, values: Any, **given: Any) -> None:
        self.calls.append(("log", values, given))

    def finish(self) -> None:
        self.calls.append(("finish",))


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_calls_of_wandb_and_trackio(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = __import__(f"l0prune.adapters.{name}", fromlist=["x"])
    library = Recorder(name)
    monkeypatch.setitem(sys.modules, name, library)
    observer = {"wandb": "WandbObserver", "trackio": "TrackioObserver"}[name]
    run(getattr(module, observer)("project", group="g"), tmp_path / "run")
    begun, *logged, last, end = library.calls
    assert (begun[1]["project"], begun[1]["name"], begun[1]["group"]) == ("project", "run", "g")
    assert begun[1]["config"]["target_sparsity"] == 0.5
    assert [entry[2]["step"] for entry in logged] == [1, 2, 4, 6, 7, 8, 10]
    assert last[1]["report/params_after"] > 0
    assert end == ("finish",)


def test_tensorboard_reads_what_is_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        report = run(TensorBoardObserver(), tmp_path / "run")
        events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
        events.Reload()
    assert [point.step for point in events.Scalars("joint/loss")] == [1, 2, 4, 6]
    assert [point.step for point in events.Scalars("further/loss")] == [7, 8, 10]
    assert events.Scalars("report/params_after")[0].value == report.params_after
    assert torch.isfinite(torch.tensor([point.value for point in events.Scalars("joint/loss")])).all()


def test_mlflow_keeps_a_run_offline(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    from l0prune.adapters.mlflow import MlflowObserver

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    run(MlflowObserver("project", uri=uri), tmp_path / "run")
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("project")
    (one,) = client.search_runs([experiment.experiment_id])
    assert one.data.params["joint.steps"] == "6"
    assert [m.step for m in client.get_metric_history(one.info.run_id, "joint/loss")] == [1, 2, 4, 6]
