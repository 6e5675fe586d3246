"""Runs without a joint stage: files as ever, a selection by importance; schedules in other numbers of steps."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from calibration_networks import Encoder, images, same
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import l0prune
from l0prune import ConfigError, DataError

SETTINGS: dict[str, Any] = {"target_sparsity": 0.5, "precision": "float32", "device": "cpu", "steps": 0}


NONE = {"steps": 0, "learning_rate": 1e-3}


class Fit(l0prune.Objective):
    """Cross-entropy on labels."""

    def forward(self, batch: tuple[Tensor, Tensor]) -> l0prune.Losses:
        return l0prune.Losses(total=nn.functional.cross_entropy(self.student(batch[0]), batch[1]), amount=len(batch[0]))


class Copy(l0prune.Objective):
    """A student that begins as its teacher."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__(student)
        self.teacher = [build()]

    def forward(self, batch: tuple[Tensor, Tensor]) -> l0prune.Losses:
        with torch.no_grad():
            wanted = self.teacher[0](batch[0])
        return l0prune.Losses(total=nn.functional.mse_loss(self.student(batch[0]), wanted))


def build() -> nn.Module:
    torch.manual_seed(0)
    return Encoder().double().eval()


def batches(position: int):
    while True:
        yield images(position, 8)
        position += 1


def make_task(objective: type[l0prune.Objective] = Fit) -> l0prune.Task:
    model = build()
    x = images(99)[0]
    groups = l0prune.inspect(model, x).groups
    return l0prune.Task(
        objective=objective(model),
        groups=groups,
        batches=batches,
        observe=lambda net: net(x),
        evaluation=[images(1000, 16)],
    )


def run(out: Path, objective: type[l0prune.Objective] = Fit, **settings: Any) -> l0prune.CompressionReport:
    return l0prune.compress(make_task(objective), settings={**SETTINGS, **settings}, out=out)


@pytest.mark.parametrize("importance", ["magnitude", "activation", "taylor", "fisher", "random"])
@pytest.mark.parametrize("repair", [False, True])
def test_the_selection_comes_from_the_importance(importance: str, repair: bool, tmp_path: Path) -> None:
    one_shot = {"importance": importance, "repair": repair, "batches": 3}
    report = run(tmp_path / "run", one_shot=one_shot)
    model, task = build(), make_task()

    def loss(student: nn.Module, batch: Any) -> Tensor:
        return nn.functional.cross_entropy(student(batch[0]), batch[1])

    given = [images(n, 8) for n in range(3)]
    expected = l0prune.prune(
        model,
        images(99)[0],
        target_sparsity=0.5,
        importance=importance,
        batches=given,
        loss=loss,
        repair=repair,
        groups=task.groups,
    )
    found = l0prune.load(tmp_path / "run", build)
    assert l0prune.plan_of(found).kept == l0prune.plan_of(expected).kept
    assert same(found, expected)
    assert report.params_after <= 0.5 * report.params_before
    assert report.max_relative_difference < 1e-5
    assert report.expected_sparsity_at_cut is None
    last = report.distill_loss_after_repair if repair else report.distill_loss_after_removal
    assert report.distill_loss_final == last


@pytest.mark.usefixtures("rendered")
def test_files_and_report_are_those_of_any_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    report = run(folder)
    names = {path.name for path in folder.iterdir()}
    wanted = {"model.safetensors", "model.json", "report.json", "metrics.jsonl", "architecture.png", "config.toml"}
    assert names == {*wanted, "checkpoints", "probe.safetensors", "run.json"}
    assert (folder / "metrics.jsonl").read_text() == ""
    assert json.loads((folder / "report.json").read_text()) == json.loads(json.dumps(report.to_json()))
    assert report.stage_seconds == {"joint": 0.0, "further": 0.0}
    page = tmp_path / "page.html"
    l0prune.write_report([folder], page)
    assert page.stat().st_size > 1000


def test_a_cut_at_once_may_be_followed_by_training(tmp_path: Path) -> None:
    settings = {"joint": {"steps": 0, "learning_rate": 1e-2}, "further": {"steps": 20, "learning_rate": 1e-2}}
    values = {key: value for key, value in SETTINGS.items() if key != "steps"}
    report = l0prune.compress(make_task(), settings={**values, **settings}, out=tmp_path / "run")
    assert report.distill_loss_final != report.distill_loss_after_repair
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == 3


def test_a_copy_of_its_teacher_has_activations_but_no_gradient(tmp_path: Path) -> None:
    assert run(tmp_path / "run", Copy).distill_loss_before_removal is not None
    for importance in ("taylor", "fisher"):
        with pytest.raises(DataError, match="the loss has no gradient on the calibration batches"):
            run(tmp_path / "other", Copy, one_shot={"importance": importance})
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"one_shot": {"importance": "tayler"}}, "no such importance: one_shot (got 'tayler'); did you mean 'taylor'?"),
        ({"one_shot": {"batches": 0}}, "one_shot.batches out of range"),
        ({"one_shot": {"repairs": True}}, "no such setting: one_shot.repairs"),
        ({"steps": -1}, "steps out of range (got -1"),
        ({"steps": True}, "steps out of range (got True"),
        ({"steps": 3, "joint": NONE, "further": NONE}, "steps cannot be shared out"),
        ({"step": 3}, "did you mean 'steps'?"),
    ],
)
def test_bad_input(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        run(tmp_path / "run", **settings)
    assert words in str(error.value)


@given(st.integers(0, 5000), st.integers(0, 2000), st.integers(1, 3000))
def test_steps_are_shared_out_in_the_recipes_proportion(joint: int, further: int, steps: int) -> None:
    task = l0prune.get_plugin("speech")
    stages = {name: {"steps": n, "warmup_steps": n // 10} for name, n in (("joint", joint), ("further", further))}
    layers = {**stages, "controller": {"warmup_steps": joint // 3}}
    if not joint + further:
        return
    run = l0prune.resolve(task, layers, {"steps": steps})
    assert run.joint.steps + run.further.steps == steps
    assert abs(run.joint.steps - steps * joint / (joint + further)) <= 1
    assert (run.joint.steps > 0) == (joint > 0)
    assert run.controller.warmup_steps <= run.joint.steps
    before = l0prune.resolve(task, layers)
    assert l0prune.resolve(task, layers, {"steps": joint + further}) == before
