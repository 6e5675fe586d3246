"""The end of a run is tried before its first step."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import l0prune
from l0prune.gates import Gates
from l0prune.layers import Layer, open_norm, register


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.relu(self.up(x)))


def wrapped(model: nn.Module | None = None) -> l0prune.L0Pruner:
    return l0prune.wrap(model or Small(), torch.randn(5, 4), target_sparsity=0.5)


def test_a_rehearsal_changes_nothing_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    pruner, seen = wrapped(), []
    before, state = {k: v.clone() for k, v in pruner.model.state_dict().items()}, torch.get_rng_state()
    assert l0prune.rehearse(pruner, export=seen.append) > 0
    assert type(seen[0]) is Small
    assert seen[0].up.out_features < 8
    assert all(torch.equal(tensor, before[name]) for name, tensor in pruner.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert pruner.model.training
    assert not [*tmp_path.iterdir()]
    with pytest.raises(l0prune.TrainingError, match="before any step"):
        pruner.finalize()


def test_what_cannot_be_exported_or_loaded_is_seen_before_the_first_step() -> None:
    class Drawn(Small):
        """With a buffer that is not saved, and that another instance has otherwise."""

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.rand(3), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * self.scale

    pruner = wrapped(Drawn())
    l0prune.rehearse(pruner)
    pruner.dense = Drawn  # What a caller of `load` would build.
    with pytest.raises(l0prune.ProofError, match="what is saved and loaded is another network"):
        l0prune.rehearse(pruner)

    def export(module: nn.Module) -> None:
        raise ValueError("no such operator")

    with pytest.raises(ValueError, match="no such operator"):
        l0prune.rehearse(wrapped(), export)


def test_wrap_takes_gates_off_again_where_the_cut_fails() -> None:
    class Kept:
        """Its copies have no width."""

        width = 8

        def __deepcopy__(self, memo: dict) -> "Kept":
            if gated():
                raise AttributeError("no width")
            return self

    def gated() -> bool:
        return any(isinstance(module, Gates) for module in model.modules())

    model = Small()
    model.kept = Kept()
    with pytest.raises(
        l0prune.ProofError, match=r"a gated copy of the model cannot be cut .got AttributeError: no width"
    ):
        wrapped(model)
    assert {*model.state_dict()} == {*Small().state_dict()}
    assert type(model.down) is nn.Linear


class Sharing(Small):
    """Two buffers that show parts of one tensor, which safetensors does not write."""

    def __init__(self) -> None:
        super().__init__()
        table = torch.ones(5)
        self.register_buffer("first", table[:3])
        self.register_buffer("last", table[2:])


class Fit(l0prune.Objective):
    def forward(self, batch: Tensor) -> l0prune.Losses:
        return l0prune.Losses(total=self.student(batch).square().mean(), amount=len(batch))


def task(student: nn.Module) -> l0prune.Task:
    inputs = torch.randn(5, 4)
    return l0prune.Task(
        objective=Fit(student),
        groups=l0prune.inspect(student, inputs).groups,
        batches=lambda position: itertools.repeat(inputs),
        observe=lambda model: model(inputs),
    )


def compress(student: nn.Module, folder: Path) -> None:
    stages = {"joint": {"steps": 2}, "further": {"steps": 1}, "controller": {"warmup_steps": 1}}
    settings = {"target_sparsity": 0.5, "device": "cpu", "precision": "float32", **stages}
    l0prune.compress(task(student), settings=settings, out=folder)


def test_a_run_whose_network_could_not_be_saved_makes_no_step(tmp_path: Path) -> None:
    student = Sharing()
    with pytest.raises(l0prune.RunError, match="the network cannot be saved"):
        compress(student, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert not [*(tmp_path / "run").rglob(".rehearsal*")]
    assert type(student.up) is nn.Linear


def test_a_run_leaves_nothing_of_its_rehearsal(tmp_path: Path) -> None:
    compress(Small(), tmp_path / "run")
    assert (tmp_path / "run" / "report.json").exists()
    assert not [*(tmp_path / "run").rglob(".rehearsal*")]


def test_a_run_whose_gates_would_change_training_makes_no_step(tmp_path: Path) -> None:
    class Dropping(nn.LayerNorm):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(super().forward(x), 0.5, self.training)

    def over_open(norm: Any, x: Tensor, opened: Any, weight: Any, bias: Any, dim: int) -> Tensor:
        return open_norm(x, opened, weight, bias, dim=dim, eps=norm.eps)

    student = nn.Sequential(nn.Linear(4, 8), Dropping(8), nn.Linear(8, 3))
    prepared = task(student)
    assert prepared.groups
    register(Dropping, Layer(over_open=over_open))
    with pytest.raises(l0prune.ProofError, match=r"gates on this group change training: 0 .*it trains otherwise"):
        l0prune.compress(prepared, settings={"target_sparsity": 0.3, "device": "cpu"}, out=tmp_path / "run")
    assert type(student[1]) is Dropping
