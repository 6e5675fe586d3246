"""uniform=True: layers keep one width in common while gates learn it, with compaction and without."""

from typing import Any

import pytest
import torch
from small_training import FAST
from torch import Tensor, nn
from torch.nn import functional as F

import l0prune
from l0prune import ConfigError, GateConfig


class Blocks(nn.Module):
    """Three residual blocks of one width, and a wider one."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleList([nn.Linear(8, 24), nn.Linear(8, 24), nn.Linear(8, 24), nn.Linear(8, 40)])
        self.outer = nn.ModuleList([nn.Linear(24, 8), nn.Linear(24, 8), nn.Linear(24, 8), nn.Linear(40, 8)])

    def forward(self, x: Tensor) -> Tensor:
        for inner, outer in zip(self.inner, self.outer, strict=True):
            x = x + outer(F.relu(inner(x)))
        return x


@pytest.mark.parametrize("compaction", [False, True])
def test_gates_learn_one_width_for_layers_that_are_alike(compaction: bool) -> None:
    torch.manual_seed(0)
    more: dict[str, Any] = {
        "compaction": l0prune.config.CompactionConfig(enabled=compaction, every_steps=5, patience=1)
    }
    dense = Blocks()
    total = sum(p.numel() for p in dense.parameters())
    pruner = l0prune.wrap(dense, torch.randn(4, 8), target_sparsity=0.5, uniform=True, controller=FAST, **more)
    optimizer = torch.optim.AdamW(pruner.parameter_groups(lr=1e-3))
    for _ in range(40):
        x = torch.randn(32, 8)
        (F.mse_loss(pruner.model(x), x.roll(1, -1)) + pruner.penalty()).backward()
        optimizer.step()
        optimizer.zero_grad()
        pruner.step(optimizer)
    # What gates expect is tied as the cut is.
    chances = pruner.gated.gates.keep_probabilities().split([group.units for group in pruner.gated.gates.groups])
    expected = torch.stack([p.double().sum() for p in chances])[:3]
    torch.testing.assert_close(expected, expected.mean().expand(3))
    small = pruner.finalize()
    alike = {len(units) for name, units in pruner.plan.kept.items() if name != "inner.3"}
    assert len(alike) == 1
    assert sum(p.numel() for p in small.parameters()) <= 0.5 * total


def test_uniform_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="uniform is given twice"):
        l0prune.wrap(Blocks(), torch.randn(4, 8), target_sparsity=0.5, uniform=True, gates=GateConfig())
