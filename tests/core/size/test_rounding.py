"""Widths by default: multiples of what kernels work on, where layers are wide, and the target is met from below."""

import pytest
import torch
from small_training import FAST, Net, batch, train
from torch import nn

import l0prune
from l0prune import ConfigError, plan_of

X = torch.randn(2, 3, 8, 8)


def wide(width: int = 96) -> nn.Module:
    torch.manual_seed(0)
    relu = nn.ReLU()
    body = nn.Conv2d(width, 2 * width, 3), relu, nn.Conv2d(2 * width, width, 1)
    return nn.Sequential(nn.Conv2d(3, width, 3), relu, *body, relu, nn.Conv2d(width, 4, 1))


def widths(model: nn.Module) -> list[int]:
    plan = plan_of(model)
    return [len(plan.kept[group.name]) for group in plan.groups]


@pytest.mark.parametrize("target", [0.2, 0.5, 0.9])
def test_wide_layers_keep_multiples_of_8_and_the_size_is_met_from_below(target: float) -> None:
    dense = sum(p.numel() for p in wide().parameters())
    for round_to in (None, "auto"):
        small = l0prune.prune(wide(), X, target_sparsity=target, round_to=round_to)
        assert all(width % 8 == 0 for width in widths(small))
        assert sum(p.numel() for p in small.parameters()) <= (1 - target) * dense
    free = l0prune.prune(wide(), X, target_sparsity=target, round_to=1)
    assert target != 0.5 or any(width % 8 for width in widths(free))
    left = [sum(p.numel() for p in model.parameters()) for model in (small, free)]
    assert left[0] <= left[1] <= (1 - target) * dense


def test_narrow_layers_and_tight_targets_are_not_rounded_away() -> None:
    narrow = l0prune.prune(wide(24), X, target_sparsity=0.5)
    assert any(width % 8 for width in widths(narrow))
    # A block of 8 would be a tenth of the network.
    hidden = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 4))
    left = sum(p.numel() for p in l0prune.prune(hidden, torch.randn(2, 8), target_sparsity=0.5).parameters())
    assert 0.5 * 836 - 13 < left <= 0.5 * 836
    # Blocks of 8 could not get this small.
    tight = l0prune.prune(wide(64), X, target_sparsity=0.995)
    assert min(widths(tight)) < 8
    with pytest.raises(l0prune.TargetError, match="lower the target or `round_to`"):
        l0prune.prune(wide(64), X, target_sparsity=0.995, round_to=8)
    with pytest.raises(ConfigError, match=r'gates.round_to out of range .got fast, expected .* or "auto"'):
        l0prune.prune(wide(), X, target_sparsity=0.5, round_to="fast")  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:the gates are at an expected sparsity:UserWarning")
def test_the_report_says_how_widths_sit() -> None:
    pruner = l0prune.wrap(wide(), X, target_sparsity=0.5, controller=FAST)
    pruner.step()
    pruner.finalize()
    assert pruner.report.round_to == 8
    got = [len(units) for units in pruner.plan.kept.values()]
    assert pruner.report.widths == {
        "widths": 3,
        "multiples_of_8": 3,
        "multiples_of_16": sum(width % 16 == 0 for width in got),
    }
    pruner = l0prune.wrap(Net(), batch()[0], target_sparsity=0.5, controller=FAST)
    train(pruner, torch.optim.AdamW(pruner.parameter_groups(lr=1e-3)), 1)
    pruner.finalize()
    assert pruner.report.round_to == 1
