"""The augmented Lagrangian: its schedule, its gradients, and the ascent of its multipliers."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_training import adam, make, train

from l0prune.config import ControllerConfig
from l0prune.errors import ConfigError
from l0prune.gates.size_controllers import AugmentedLagrangian


@given(st.floats(0.01, 0.99), st.integers(0, 50), st.integers(0, 100))
def test_target_rises_linearly_to_its_end(target: float, warmup: int, step: int) -> None:
    lagrangian = AugmentedLagrangian(target, ControllerConfig(warmup_steps=warmup))
    assert lagrangian.target_at(step) == pytest.approx(target * min(1.0, step / warmup if warmup else 1.0))
    assert lagrangian.target_at(step) <= lagrangian.target_at(step + 1) <= target


@given(st.floats(0, 1), st.floats(-5, 5), st.floats(0, 30))
def test_penalty_is_equation_6_with_its_gradients(sparsity: float, linear: float, quadratic: float) -> None:
    lagrangian = AugmentedLagrangian(0.75, ControllerConfig(warmup_steps=0, quadratic_start=quadratic))
    with torch.no_grad():
        lagrangian.multipliers[0] = linear
    s = torch.tensor(sparsity, dtype=torch.float64, requires_grad=True)
    penalty = lagrangian.penalty(s, 3)
    penalty.backward()
    gap = sparsity - 0.75
    assert penalty.item() == pytest.approx(linear * gap + quadratic * gap**2)
    assert s.grad is not None
    assert lagrangian.multipliers.grad is not None
    assert s.grad.item() == pytest.approx(linear + 2 * quadratic * gap)
    # Reversed: an optimizer that minimises ascends.
    assert lagrangian.multipliers.grad.tolist() == pytest.approx([-gap, -(gap**2)])


def test_ascent_finds_the_constrained_optimum() -> None:
    """min (s - 0.2)^2 with s = 0.6 enforced: the multiplier ends at minus the slope of the loss."""
    lagrangian = AugmentedLagrangian(0.6, ControllerConfig(warmup_steps=0, quadratic_start=1.0))
    s = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([s, lagrangian.multipliers], lr=0.1)
    for step in range(600):
        optimizer.zero_grad()
        ((s - 0.2) ** 2 + lagrangian.penalty(s, step)).backward()
        optimizer.step()
    assert s.item() == pytest.approx(0.6, abs=1e-4)
    assert lagrangian.multipliers[0].item() == pytest.approx(-2 * 0.4, abs=1e-3)
    assert lagrangian.multipliers[1].item() > 1.0


def test_a_pi_controller_brings_the_expected_sparsity_to_its_target() -> None:
    pruner = make(0.5, controller=ControllerConfig(kind="pi", learning_rate=0.05, warmup_steps=100))
    train(pruner, adam(pruner), 300)
    assert pruner.sparsity.expected == pytest.approx(0.5, abs=0.03)
    own, gates = pruner.parameter_groups()
    assert len(gates["params"]) == 1
    assert not any(parameter is gates["params"][0] for parameter in own["params"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "pid"},
        {"learning_rate": 0.0},
        {"memory": 1.0},
        {"look_steps": -1},
        {"group_rate": -0.1},
        {"sharpness": 0.0},
        {"final_sharpness": 1.0},
        {"settle_steps": 99},
        {"proportional": -1.0},
    ],
)
def test_settings_out_of_range(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigError, match=f"controller.{name}"):
        ControllerConfig(**wrong)
