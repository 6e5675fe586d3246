"""What ends a run: it is named, and nothing is left of it on the network or where it should not be."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
from perceptron_task import SETTINGS, WIDTH, Fit, Watch, batches, make_task, network
from torch import Tensor, nn

import l0prune


def test_loss_that_is_never_finite_ends_the_run(tmp_path: Path) -> None:
    class Hopeless(Fit):
        def forward(self, batch):
            losses = super().forward(batch)
            return l0prune.Losses(total=losses.total * math.nan)

    task = make_task()
    with pytest.raises(l0prune.TrainingError, match="not finite"):
        l0prune.compress(
            make_task(objective=Hopeless(task.objective.student), evaluation=()),
            settings=SETTINGS,
            out=tmp_path / "run",
        )
    assert not (tmp_path / "run" / "report.json").exists()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss"] for line in lines] == [None] * 9


def test_data_that_ends_is_named(tmp_path: Path) -> None:
    task = make_task(batches=lambda position: itertools.islice(batches(position), 5))
    with pytest.raises(l0prune.TrainingError, match="data ended before the stage: joint step 5"):
        l0prune.compress(task, settings=SETTINGS, out=tmp_path / "run")


def test_group_that_is_not_exact_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    task = make_task()
    group = task.groups[0]
    wrong = l0prune.PruneGroup(name="wrong", kind="unit", units=WIDTH, places=group.places[1:])
    with pytest.raises(l0prune.ProofError, match="not exact: wrong"):
        l0prune.compress(make_task(groups=[wrong]), settings={**SETTINGS, "target_sparsity": 0.2}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Stop(Exception):
    """What comes in the middle of a run."""


class Stopping(Fit):
    """Fails at a pass, counted from 1."""

    def __init__(self, student: nn.Module, at: int) -> None:
        super().__init__(student)
        self.left = at

    def forward(self, batch: tuple[Tensor, Tensor]) -> l0prune.Losses:
        self.left -= 1
        if not self.left:
            raise Stop
        return super().forward(batch)


# In the joint stage; at the evaluation before the cut, and after it.
@pytest.mark.parametrize("at", [3, 31, 33])
def test_no_gates_are_left_on_the_network_after_an_error(at: int, tmp_path: Path) -> None:
    task = make_task()
    student = task.objective.student
    names = list(student.state_dict())
    compaction = {"compaction": {"enabled": False}}
    with pytest.raises(Stop):
        l0prune.compress(make_task(objective=Stopping(student, at)), settings=SETTINGS | compaction, out=tmp_path / "1")
    assert list(student.state_dict()) == names
    l0prune.compress(task, settings=SETTINGS, out=tmp_path / "2")
    assert list(student.state_dict()) == names


def test_no_gates_are_left_on_the_network_after_a_refused_group(tmp_path: Path) -> None:
    task = make_task()
    student, group = task.objective.student, task.groups[0]
    names = list(student.state_dict())
    wrong = l0prune.PruneGroup(name="wrong", kind="unit", units=WIDTH, places=group.places[1:])
    refused = make_task(objective=task.objective, groups=[wrong])
    with pytest.raises(l0prune.ProofError):
        l0prune.compress(refused, settings={**SETTINGS, "target_sparsity": 0.2}, out=tmp_path / "run")
    assert list(student.state_dict()) == names


def test_an_error_once_units_are_gone_says_to_make_the_task_anew(tmp_path: Path) -> None:
    watch = Watch()
    # The fifth pass of the further stage; four are evaluations at the cut.
    task = make_task(objective=Stopping(network(), 30 + 4 + 5))
    with pytest.raises(Stop):
        l0prune.compress(task, settings=SETTINGS, out=tmp_path / "run", observer=watch)
    assert "make the task anew" in watch.notes[-1]


@pytest.mark.parametrize("wrong", [3, nn.Linear(2, 2), Watch])
def test_what_is_no_plugin_is_refused(wrong: Any, tmp_path: Path) -> None:
    with pytest.raises(l0prune.PluginError, match=r"not a plugin .*a Task"):
        l0prune.compress(wrong, out=tmp_path / "run")
