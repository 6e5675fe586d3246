"""What an objective trains, and what it leaves in evaluation mode."""

import copy
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import l0prune
from l0prune import distributed
from l0prune.distributed import World
from l0prune.training.objective import evaluate


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 4))


class Distill(l0prune.Objective):
    def __init__(self, teacher: nn.Module, *, frozen: bool = True) -> None:
        super().__init__(student=copy.deepcopy(teacher))
        self.teacher = teacher.eval().requires_grad_(not frozen)
        self.seen: set[tuple[bool, bool]] = set()

    def forward(self, batch: Tensor) -> l0prune.Losses:
        self.seen.add((self.training, any(module.training for module in self.teacher.modules())))
        told, said = (net(batch).log_softmax(1) for net in (self.teacher, self.student))
        return l0prune.Losses(total=nn.functional.kl_div(said, told, log_target=True, reduction="batchmean"))


def batches(position: int) -> Iterator[Tensor]:
    for number in itertools.count(position):
        yield 3 + torch.randn(16, 8, generator=torch.Generator().manual_seed(number))


def observe(model: nn.Module) -> Tensor:
    return model(torch.linspace(-1, 1, 32).view(4, 8))


def test_a_frozen_teacher_stays_in_evaluation_mode_through_a_whole_run(tmp_path: Path) -> None:
    objective = Distill(network())
    before = copy.deepcopy(objective.teacher.state_dict())
    task = l0prune.Task(
        objective=objective,
        groups=l0prune.discover(objective.student, observe).groups,
        batches=batches,
        observe=observe,
        evaluation=list(itertools.islice(batches(100), 1)),
    )
    stage = {"steps": 3, "learning_rate": 1e-3}
    l0prune.compress(task, settings={"target_sparsity": 0.5, "joint": stage, "further": stage}, out=tmp_path / "run")
    assert objective.seen == {(True, False), (False, False)}
    assert all(torch.equal(tensor, before[name]) for name, tensor in objective.teacher.state_dict().items())


def test_everything_else_trains_gates_norms_and_frozen_parts_of_the_student_too() -> None:
    objective = Distill(nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 4)))
    gated = l0prune.GatedModel(
        objective.student, l0prune.discover(objective.student, observe).groups, target_sparsity=0.5
    )
    objective.student[0].requires_grad_(False)
    gated.eval()
    objective.train()
    assert all(module.training for module in objective.student.modules())
    assert not any(module.training for module in objective.teacher.modules())
    taught = Distill(network(), frozen=False).train()
    assert all(module.training for module in taught.modules())


def test_evaluation_gives_each_module_its_own_mode_back() -> None:
    objective = Distill(network()).train()
    objective.student[1].eval()
    objective.teacher[1].train()
    modes = [module.training for module in objective.modules()]
    evaluate(objective, list(itertools.islice(batches(0), 1)))
    assert [module.training for module in objective.modules()] == modes


def test_processes_share_held_out_batches_and_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    objective, held_out = Distill(network()), list(itertools.islice(batches(0), 5))
    alone = evaluate(objective, held_out)
    for size in (2, 3, 7):
        heard: dict[int, list[Any]] = {}

        def gather(found: list[Any], mine: list[Any], heard: dict[int, list[Any]] = heard, size: int = size) -> None:
            heard[distributed.world().rank] = mine
            found[:] = [heard.get(rank, heard[0][:1] * 5) for rank in range(size)]

        monkeypatch.setattr(distributed, "agree", lambda error: None)
        monkeypatch.setattr(distributed.dist, "all_gather_object", gather)
        # Once to hear what each has to say, once with all that was said.
        for rank in (*range(size), *range(size)):
            monkeypatch.setattr(distributed, "world", lambda rank=rank, size=size: World(rank=rank, size=size))
            complete, found = len(heard) == size, evaluate(objective, held_out)
            assert not complete or found == alone
        assert [len(heard[rank]) for rank in range(size)] == [len(held_out[rank::size]) for rank in range(size)]
