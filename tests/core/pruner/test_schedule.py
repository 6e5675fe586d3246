"""The schedule of a run whose length is known."""

import pytest
import torch
from torch import nn

import l0prune
from l0prune.pruner import gated_share, scheduled


@pytest.mark.parametrize(
    ("sparsity", "share"), [(0.25, 0.5), (0.75, 0.5), (0.9, 0.5), (0.925, 0.4), (0.95, 0.3), (0.99, 0.3)]
)
def test_fewer_steps_choose_where_nearly_all_is_removed(sparsity: float, share: float) -> None:
    assert gated_share(sparsity) == share
    assert scheduled(200, gated_share(sparsity)).settle_steps == round(200 * share)


@pytest.mark.parametrize(("sparsity", "steps"), [(0.5, 50), (0.95, 30)])
def test_wrap_settles_after_the_share_of_its_target(sparsity: float, steps: int) -> None:
    model = nn.Sequential(nn.Linear(6, 80), nn.ReLU(), nn.Linear(80, 80), nn.ReLU(), nn.Linear(80, 2))
    pruner = l0prune.wrap(model, torch.randn(4, 6), target_sparsity=sparsity, total_steps=100, round_to=1)
    optimizer = torch.optim.SGD(pruner.parameter_groups(lr=1e-3))
    settled = []
    for _ in range(60):
        optimizer.zero_grad()
        (model(torch.randn(8, 6)).square().mean() + pruner.penalty()).backward()
        optimizer.step()
        pruner.step()
        settled.append(pruner.settled)
    assert settled.index(True) + 1 == steps
