"""Active parameters: what takes part for one token, in networks with experts and in others."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import l0prune
from l0prune.size import Subject, metric_named
from l0prune.size.active import Picked, picked_experts

WIDTH, HIDDEN, EXPERTS, PICKED = 8, 12, 6, 2


class Listed(nn.Module):
    """A router, and experts in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(WIDTH, EXPERTS)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, WIDTH)) for _ in range(EXPERTS)
        )

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.router(x).softmax(-1).topk(PICKED, -1)
        found = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            share = (weights * (chosen == number)).sum(-1, keepdim=True)
            found = found + share * expert(x)
        return x + found


class Stacked(nn.Module):
    """The same with experts in one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(WIDTH, EXPERTS)
        self.up = nn.Parameter(torch.randn(EXPERTS, WIDTH, HIDDEN))
        self.down = nn.Parameter(torch.randn(EXPERTS, HIDDEN, WIDTH))
        self.bias = nn.Parameter(torch.randn(EXPERTS, HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.router(x).softmax(-1).topk(PICKED, -1)
        hidden = (x[:, None, None] @ self.up).squeeze(-2) + self.bias
        made = (hidden.relu()[:, :, None] @ self.down).squeeze(-2)
        return x + (weights[..., None] * made.gather(1, chosen[..., None].expand(-1, -1, WIDTH))).sum(1)


def network(kind: type[nn.Module]) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, WIDTH), kind(), kind(), nn.Linear(WIDTH, 3)).eval(), torch.randn(7, 5)


def counted(model: nn.Module, x: Tensor) -> float:
    """Active parameters of a network, by its modules."""
    found = sum(parameter.numel() for parameter in model.parameters())
    for module in model.modules():
        if isinstance(module, Listed):
            found -= sum(p.numel() for p in module.experts.parameters()) * (1 - PICKED / EXPERTS)
        if isinstance(module, Stacked):
            found -= sum(p.numel() for p in (module.up, module.down, module.bias)) * (1 - PICKED / EXPERTS)
    return found


@pytest.mark.parametrize("kind", [Listed, Stacked])
def test_of_experts_as_many_count_as_are_picked(kind: type[nn.Module]) -> None:
    model, x = network(kind)
    picked = picked_experts(model, lambda net: net(x))
    names = {"1.up", "1.down", "1.bias"} if kind is Stacked else {f"1.experts.{e}.0.weight" for e in range(EXPERTS)}
    assert all(picked[name] == Picked(PICKED, EXPERTS, kind is Stacked) for name in names)
    assert not any("router" in name or name.startswith(("0.", "3.")) for name in picked)
    groups = l0prune.inspect(model, x).groups
    size = metric_named("active-params").size(Subject(model=model, groups=tuple(groups), observe=lambda net: net(x)))
    assert size.total == pytest.approx(counted(model, x) * size.unit)
    for sparsity in (0.2, 0.4) if groups else ():
        smaller = l0prune.prune(model, x, target_sparsity=sparsity, metric="active-params", round_to=1)
        kept = l0prune.plan_of(smaller).kept_counts
        found = size.exact(np.array([kept[group.name] for group in groups]))
        assert found == pytest.approx(counted(smaller, x) * size.unit)
        assert counted(smaller, x) <= (1 - sparsity) * counted(model, x)


def test_an_amount_is_of_parameters() -> None:
    model, x = network(Listed)
    most = int(0.8 * counted(model, x))
    smaller = l0prune.prune(model, x, target={"active-params": most, "params": "99%"}, round_to=1)
    assert 0.9 * most < counted(smaller, x) <= most
    with pytest.raises(l0prune.TargetError, match=r"active-params .*active parameters or more"):
        l0prune.prune(model, x, target={"active-params": 10})


def test_without_experts_it_is_the_parameters() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Conv1d(1, 6, 3), nn.Flatten(), nn.Linear(84, 3))
    x = torch.randn(2, 1, 5)
    groups = tuple(l0prune.inspect(model, x).groups)
    subject = Subject(model=model, groups=groups, observe=lambda net: net(x))
    assert metric_named("active-params").size(subject).coefficients == metric_named("params").size(subject).coefficients


def test_a_ranking_of_something_else_picks_no_experts() -> None:
    class Pooled(nn.Module):
        """Layers in a list, and a mean over the highest values of each feature."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = layer(x).relu()
            return x.topk(2, -1).values

    class Layered(nn.Module):
        """As many layers in a list as each of them ranks."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Sequential(Listed(), Ranks()) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = layer(x)
            return x

    class Ranks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * x.unflatten(-1, (4, -1)).amax(-1).topk(2, -1).values.sum(-1, keepdim=True)

    x = torch.randn(2, 6)
    assert picked_experts(Pooled(), lambda net: net(x)) == {}
    x = torch.randn(2, WIDTH)
    assert all(".experts." in name for name in picked_experts(Layered(), lambda net: net(x)))
