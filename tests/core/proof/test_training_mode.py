"""With all gates open a gated network trains as the dense one, or says where it would not."""

import copy
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import l0prune
from l0prune.layers import Layer, open_norm, register
from l0prune.proof import relative_difference


class Dropping(nn.LayerNorm):
    """A layer of its own inside."""

    def __init__(self, *shape: int) -> None:
        super().__init__(*shape)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(super().forward(x))


class Clamped(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.clamp(-3, 3))


class Widened(nn.GroupNorm):
    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.double(), self.bias.double()
        return F.dropout(F.group_norm(x.double(), self.num_groups, weight, bias, self.eps), 0.3, self.training).to(x)


class Functional(nn.Module):
    """Of no class that is known."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.shift = nn.Parameter(torch.rand(width) + 0.5), nn.Parameter(torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (x.shape[-1],), self.weight, self.shift, 1e-3).clamp(max=2)


class FunctionalRms(nn.RMSNorm):
    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)


class LookAlikeRms(nn.Module):
    """An RMS norm written out, and something more."""

    def __init__(self, width: int, drop: float = 0.0, most: float | None = None, most_out: float | None = None) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.rand(width) + 0.5), 1e-6
        self.rest = drop, most, most_out

    def forward(self, x: Tensor) -> Tensor:
        drop, most, most_out = self.rest
        x = x if most is None else x.clamp(-most, most)
        y = self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)
        y = y if most_out is None else y.clamp(-most_out, most_out)
        return F.dropout(y, drop, self.training)


def network(norm: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), norm, nn.ReLU(), nn.Linear(16, 3))


@pytest.mark.filterwarnings("ignore:the gates are at an expected sparsity")
@pytest.mark.parametrize("size", [1, 100])
@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.LayerNorm(16),
        lambda: Dropping(16),
        lambda: Clamped(16),
        lambda: Widened(2, 16),
        lambda: Functional(16),
        lambda: LookAlikeRms(16),
        lambda: LookAlikeRms(16, drop=0.5),
        lambda: LookAlikeRms(16, most=5.0),
        lambda: LookAlikeRms(16, most_out=3.0),
        lambda: nn.RMSNorm(16),
    ],
)
def test_a_norm_keeps_its_forward_and_is_cut_exactly(make: Callable[[], nn.Module], size: float) -> None:
    dense = network(make()).train()
    model, x = copy.deepcopy(dense), size * torch.randn(8, 4)
    pruner = l0prune.wrap(model, x, target_sparsity=0.3)
    assert [row.proved for row in pruner.inspection.rows] == [True]

    def trained(network: Any) -> list[Tensor]:
        leaf = x.clone().requires_grad_()
        torch.manual_seed(1)
        y = network(leaf)
        return [y, *torch.autograd.grad(y.square().sum(), [leaf, network[0].bias])]

    with pruner.gated.gates.fixed(torch.ones_like(pruner.gated.gates.log_alpha)):
        assert relative_difference(trained(dense), trained(model)) < 1e-5
    (model(x).square().mean() + pruner.penalty()).backward()
    pruner.step()
    pruned = pruner.finalize()
    assert type(pruned[1]) is type(dense[1])  # pyright: ignore[reportIndexIssue]
    assert relative_difference(model.eval()(x), pruned(x)) < 1e-5
    assert model.state_dict().keys() >= {k for k in dense.state_dict() if k.startswith("1.")}


class Doubled(nn.LayerNorm):
    """Registered with an output that leaves its dropout out."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps), 0.5, self.training)


@pytest.mark.filterwarnings("ignore:the gates are at an expected sparsity")
def test_what_trains_otherwise_is_refused_by_name() -> None:
    def over_open(norm: Any, x: Tensor, opened: Any, weight: Any, bias: Any, dim: int) -> Tensor:
        return open_norm(x, opened, weight, bias, dim=dim, eps=norm.eps)

    register(Doubled, Layer(sizes=lambda norm: {"normalized_shape": tuple(norm.weight.shape)}, over_open=over_open))
    model = nn.Sequential(nn.Linear(4, 16), Doubled(16), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    found = l0prune.inspect(model, torch.randn(8, 4))
    assert [group.name for group in found.groups] == ["2"]
    assert re.search("all open it trains otherwise than the dense network: relative difference", found.refused["0"])
    pruner = l0prune.wrap(model, torch.randn(8, 4), target_sparsity=0.2)
    (model(torch.randn(8, 4)).square().mean() + pruner.penalty()).backward()
    pruner.step()
    pruner.finalize()
    assert "trains otherwise" in pruner.report.left_alone["0"]


class Keeping(nn.Module):
    """Outputs that are no tensors, and what it keeps of a pass."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.up, self.mid, self.down, self.how = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3), how

    def forward(self, x: Tensor) -> Any:
        hidden = F.relu(self.up(x))
        y = self.down(F.relu(self.mid(hidden)))
        if self.how == "float":
            return y, float(hidden.mean())
        if self.how == "array":
            return y, hidden.detach().numpy()
        if self.how == "loss":
            self.auxiliary = {"loss": hidden.square().mean()}
        if self.how == "activation":
            self.hidden = hidden
        return (y, "done", 3) if self.how == "text" else y


@pytest.mark.parametrize(
    ("how", "reached", "note"),
    [
        ("nothing", {"up", "mid"}, ""),
        ("float", {"mid"}, ""),
        ("array", {"mid"}, ""),
        ("loss", {"mid"}, ""),
        ("activation", {"up", "mid"}, "kept by modules of a forward pass, not compared: hidden"),
        ("text", {"up", "mid"}, "outputs of these types are not compared: int, str"),
    ],
)
def test_what_is_no_tensor_is_compared_or_told_of(how: str, reached: set[str], note: str) -> None:
    found = l0prune.inspect(Keeping(how), torch.randn(5, 4))
    assert {group.name for group in found.groups} == reached
    assert [*found.notes] == ([note] if note else [])


def test_a_pass_that_does_not_repeat_itself_or_fails_in_training_mode_is_told_of() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down, self.passes = nn.Linear(4, 8), nn.Linear(8, 3), 0

        def forward(self, x: Tensor) -> Tensor:
            self.passes += self.training
            return self.down(F.relu(self.up(x))) * (1 + self.passes)

    (note,) = l0prune.inspect(Counting(), torch.randn(5, 4)).notes
    assert note.endswith("not compared in training mode: the forward pass does not repeat itself there")
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    notes = l0prune.inspect(model, torch.randn(1, 4)).notes
    assert any("not compared in training mode: the forward pass failed (ValueError: Expected more" in n for n in notes)


def test_nothing_is_left_of_the_comparison() -> None:
    model, x = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3)), torch.randn(6, 4)
    model[1].eval()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    numbers = np.random.get_state()[1].copy()
    l0prune.inspect(model, x)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert (numbers == np.random.get_state()[1]).all()
    assert [m.training for m in model] == [True, False, True, True]
