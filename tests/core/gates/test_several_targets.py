"""Several targets in training: every expected size is at most its target, and those that bind are at theirs."""

from typing import Any

import pytest
import torch
from small_training import controller_of
from torch import nn
from torch.nn import functional as F

import l0prune
from l0prune import L0Pruner
from l0prune.config import CompactionConfig, ControllerConfig


def network() -> nn.Module:
    """Convolutions that cost time, and a layer that costs parameters."""
    torch.manual_seed(0)
    features = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 24, 3, padding=1), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 128), nn.ReLU(), nn.Linear(128, 4)]
    return nn.Sequential(*features, *head)


def train(pruner: L0Pruner, steps: int, look: Any = None) -> None:
    optimizer = torch.optim.AdamW(pruner.parameter_groups(lr=1e-3))
    random = torch.Generator().manual_seed(1)
    for step in range(steps):
        x = torch.randn(16, 3, 6, 6, generator=random)
        loss = F.mse_loss(pruner.model(x), x.mean((2, 3)) @ torch.ones(3, 4))
        (loss + pruner.penalty()).backward()
        optimizer.step()
        optimizer.zero_grad()
        pruner.step(optimizer)
        if look is not None:
            look(step)


def example() -> torch.Tensor:
    return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("compaction", [False, True])
@pytest.mark.parametrize(
    "target", [{"params": 0.4, "macs": 0.3}, {"params": 0.4, "macs": 0.9}, {"macs": 0.9, "params": 0.3}]
)
def test_every_expected_size_is_at_most_its_target_at_each_step(target: dict[str, float], compaction: bool) -> None:
    more = {"compaction": CompactionConfig(every_steps=5, patience=1)} if compaction else {}
    pruner = l0prune.wrap(network(), example(), target=target, round_to=1, total_steps=60, **more)
    removed = torch.tensor([1 - left for left in target.values()], dtype=torch.float64)

    def look(step: int) -> None:
        found = pruner.gated.expected_sparsities().detach()
        asked = removed * (pruner.sparsity.target / removed[0])
        assert (found >= asked - 2e-3).all()
        # Nothing goes that no target asks for.
        assert (found - asked).min() < 2e-3

    train(pruner, 60, look)
    small, rows = pruner.finalize(), pruner.report.targets
    assert [row["metric"] for row in rows] == list(target)
    assert all(row["size"] <= row["budget"] for row in rows)
    assert any(row["binds"] for row in rows)
    assert 0 <= pruner.report.selection_gap < 0.5
    assert sum(p.numel() for p in small.parameters()) <= target["params"] * sum(
        p.numel() for p in network().parameters()
    )
    assert pruner.report.macs_after <= target["macs"] * pruner.report.macs_before


@pytest.mark.parametrize("kind", ["lagrangian", "pi"])
def test_multipliers_bring_every_size_to_its_target(kind: Any) -> None:
    config = ControllerConfig(kind=kind, warmup_steps=60, learning_rate=0.03, quadratic_start=20, integral=0.05)
    pruner = l0prune.wrap(network(), example(), target={"params": 0.5, "macs": 0.4}, round_to=1, controller=config)
    train(pruner, 250)
    found = pruner.gated.expected_sparsities().tolist()
    assert found[0] > 0.5 - 0.05
    assert found[1] > 0.6 - 0.05
    assert min(found[0] - 0.5, found[1] - 0.6) < 0.1
    # A pair for each target, or an integral for each and their factor.
    assert len(controller_of(pruner).controller.multiplier_values()) == (4 if kind == "lagrangian" else 3)
    pruner.finalize()
    assert all(row["size"] <= row["budget"] for row in pruner.report.targets)


@pytest.mark.parametrize("kind", ["projected", "lagrangian", "pi"])
def test_one_target_is_what_target_sparsity_is(kind: Any) -> None:
    def trained(**target: Any) -> L0Pruner:
        config = ControllerConfig(kind=kind, warmup_steps=10)
        pruner = l0prune.wrap(network(), example(), controller=config, **target)
        train(pruner, 15)
        return pruner

    one, other = trained(target={"params": 0.25}), trained(target_sparsity=0.75)
    assert torch.equal(one.gated.gates.log_alpha, other.gated.gates.log_alpha)
    states = one.model.state_dict(), other.model.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert one.plan.kept == other.plan.kept


@pytest.mark.parametrize("kind", ["projected", "lagrangian", "pi"])
def test_a_saved_state_goes_on_alike(kind: Any) -> None:
    config = ControllerConfig(kind=kind, warmup_steps=20)

    def fresh() -> L0Pruner:
        target = {"params": 0.4, "macs": 0.5}
        return l0prune.wrap(network(), example(), target=target, controller=config, compaction=True)

    torch.manual_seed(0)
    pruner = fresh()
    train(pruner, 12)
    again = fresh()
    again.model.load_state_dict(pruner.model.state_dict())
    for one in (pruner, again):
        torch.manual_seed(3)
        train(one, 5)
    assert torch.equal(pruner.gated.gates.log_alpha, again.gated.gates.log_alpha)
    assert pruner.plan.kept == again.plan.kept


@pytest.mark.parametrize("uniform", [False, True])
def test_limits_hold_in_training_and_at_the_cut(uniform: bool) -> None:
    limits = {"0": (0.5, 1.0), "6": (0.1, 0.25)}
    more: dict[str, Any] = {"compaction": CompactionConfig(every_steps=5, patience=1), "limits": limits}
    pruner = l0prune.wrap(
        network(), example(), target_sparsity=0.6, round_to=1, uniform=uniform, total_steps=60, **more
    )
    names = [group.name for group in pruner.gated.groups]

    def look(step: int) -> None:
        if pruner.sparsity.target > 0:
            rows = pruner.gated.gates.keep_probabilities().split([group.units for group in pruner.gated.groups])
            expected = {
                group.name: float(row.detach().sum()) for group, row in zip(pruner.gated.groups, rows, strict=True)
            }
            assert expected["0"] >= 8 - 0.5
            assert expected["6"] >= 12.8 - 0.5
            # Units beyond a ceiling go first, and as many as the target asks for.
            assert expected["6"] <= 32 + 0.5 or pruner.sparsity.target < 0.6

    train(pruner, 60, look)
    pruner.finalize()
    kept = {name: row["kept"] for name, row in pruner.report.kept_units.items()}
    assert names == ["0", "2", "6"]
    assert kept["0"] >= 8
    assert 13 <= kept["6"] <= 32
