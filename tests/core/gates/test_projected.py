"""The controller without multipliers: its size is the target's at each step, and the cut changes nothing."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import schedulefree
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_training import Net, adam, batch, controller_of, make, train
from torch import nn
from torch.nn import functional as F

from l0prune import ConfigError, ControllerConfig, L0Pruner, PruneGroup, TrainingError, wrap
from l0prune.config import GateConfig
from l0prune.gates.gates import Gates
from l0prune.gates.projected import ProjectedController
from l0prune.groups import Place, Role, consecutive
from l0prune.size.parameters import parameter_size


def _muon(pruner: L0Pruner) -> list[torch.optim.Optimizer]:
    (own,) = pruner.parameter_groups()
    matrices = [p for p in own["params"] if p.ndim == 2]
    others = [p for p in own["params"] if p.ndim != 2]
    return [torch.optim.Muon(matrices, lr=1e-3), torch.optim.AdamW(others, lr=1e-3)]


def _schedule_free(pruner: L0Pruner) -> list[torch.optim.Optimizer]:
    optimizer = schedulefree.AdamWScheduleFree(pruner.parameter_groups(lr=1e-3))
    optimizer.train()
    return [optimizer]


OPTIMIZERS: dict[str, Callable[[L0Pruner], list[torch.optim.Optimizer]]] = {
    "SGD": lambda pruner: [torch.optim.SGD(pruner.parameter_groups(lr=1e-2, momentum=0.9))],
    "Adam": lambda pruner: [torch.optim.Adam(pruner.parameter_groups(lr=1e-3))],
    "AdamW": lambda pruner: [torch.optim.AdamW(pruner.parameter_groups(lr=1e-3))],
    "every parameter": lambda pruner: [torch.optim.AdamW(pruner.model.parameters(), lr=1e-1)],
    "schedule-free": _schedule_free,
    "Muon": _muon,
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("target", [0.5, 0.9])
def test_the_expected_sparsity_is_the_target_at_each_step_whatever_trains_the_weights(name: str, target: float) -> None:
    torch.manual_seed(0)
    pruner = wrap(Net(), batch()[0], target_sparsity=target, total_steps=60)
    optimizers, seen = OPTIMIZERS[name](pruner), []
    pruner.model.train()
    for step in range(60):
        x, y = batch(step)
        for optimizer in optimizers:
            optimizer.zero_grad()
        (F.cross_entropy(pruner.model(x), y) + pruner.penalty()).backward()
        for optimizer in optimizers:
            optimizer.step()
        pruner.step()
        seen.append(pruner.sparsity)
    assert seen[-1].target == target
    assert max(abs(expected - asked) for expected, asked in seen) < 0.005
    assert pruner.settled
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pruner.finalize()
    assert pruner.report.sparsity >= target


def test_once_settled_training_sees_what_the_cut_leaves() -> None:
    torch.manual_seed(0)
    pruner = wrap(Net(), batch()[0], target_sparsity=0.6, total_steps=40)
    optimizer = torch.optim.AdamW(pruner.parameter_groups(lr=1e-3))
    train(pruner, optimizer, 30)
    assert pruner.settled
    for module in pruner.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    with torch.no_grad():
        trained = pruner.model(batch()[0])
    torch.testing.assert_close(pruner.finalize()(batch()[0]), trained, atol=1e-5, rtol=1e-5)
    # Weights go on learning, and the choice stays.
    kept = pruner.plan.kept
    train(pruner, optimizer, 5)
    pruner.finalize()
    assert pruner.plan.kept == kept


def test_once_settled_no_step_compares_the_gates(monkeypatch: pytest.MonkeyPatch) -> None:
    """A comparison waits for the device."""
    pruner = wrap(Net(), batch()[0], target_sparsity=0.6, total_steps=40)
    optimizer = adam(pruner)
    train(pruner, optimizer, 30)
    assert pruner.settled
    with monkeypatch.context() as patch:
        patch.setattr(torch, "equal", lambda *_: pytest.fail("compared"))
        train(pruner, optimizer, 3)
    pruner.finalize()


def test_a_scaled_loss_changes_no_gate() -> None:
    """The units' order does not depend on the loss's unit."""
    found = []
    for scale in (1.0, 2.0**10):
        pruner = make(controller=ControllerConfig(kind="projected", warmup_steps=8, look_steps=2))
        for step in range(10):
            x, y = batch(step)
            (scale * F.cross_entropy(pruner.model(x), y)).backward()
            pruner.step()
        found.append(pruner.plan.kept)
    assert found[0] == found[1]


def _gates(units: int, others: int) -> Gates:
    model = nn.Sequential(nn.Linear(3, units), nn.ReLU(), nn.Linear(units, others), nn.ReLU(), nn.Linear(others, 2))
    groups = [
        PruneGroup(
            name=f"{2 * layer}",
            kind="unit",
            units=count,
            places=tuple(
                Place(tensor=name, dim=dim, role=role, index=consecutive(count))
                for name, dim, role in (
                    (f"{2 * layer}.weight", 0, Role.PRODUCES),
                    (f"{2 * layer}.bias", 0, Role.PRODUCES),
                    (f"{2 * layer + 2}.weight", 1, Role.CONSUMES),
                )
            ),
        )
        for layer, count in enumerate((units, others))
    ]
    size = parameter_size(model, groups)
    return Gates(groups, size, size.total // 2, GateConfig(), next(model.parameters()))


@given(st.integers(2, 40), st.integers(2, 40), st.floats(0.05, 0.8), st.integers(0, 10**6), st.floats(0, 12))
def test_the_shift_meets_any_target_from_any_worth(
    units: int, others: int, target: float, seed: int, spread: float
) -> None:
    gates = _gates(units, others)
    rng = np.random.default_rng(seed)
    config = ControllerConfig(kind="projected", warmup_steps=1, look_steps=0)
    start = np.exp(spread * rng.standard_normal(units + others))
    controller = ProjectedController(target, config, [units, others], start=start)
    controller.begin(gates)
    gates.log_alpha.grad = torch.from_numpy(rng.standard_normal(units + others)).float()
    controller.after_step(gates, 1)
    left = float(gates.size_model.expected(gates.keep_probabilities().detach()) / gates.size_model.total)
    assert left == pytest.approx(1 - target, abs=2e-3)


def test_units_that_the_loss_needs_stay() -> None:
    """Four of eight hidden units carry the answer; the others are noise that nothing reads."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    with torch.no_grad():
        model[2].weight[:, :4], model[2].weight[:, 4:] = 1.0, 1e-3
    pruner = wrap(model, torch.randn(2, 4), target_sparsity=0.4, total_steps=40)
    optimizer = torch.optim.SGD(pruner.parameter_groups(lr=1e-4))
    inputs = torch.randn(64, 4)
    with torch.no_grad():
        wanted = model.eval()(inputs)
    model.train()
    for _ in range(20):
        optimizer.zero_grad()
        ((model(inputs) + 0.1 * torch.randn(64, 1) - wanted) ** 2).mean().backward()
        optimizer.step()
        pruner.step()
    (kept,) = pruner.plan.kept.values()
    assert set(kept) <= {0, 1, 2, 3}


def test_a_run_without_gradients_is_told() -> None:
    pruner = make(controller=ControllerConfig(kind="projected"))
    for _ in range(10):
        pruner.step()
    with pytest.raises(TrainingError, match="no finite gradient"):
        pruner.step()


def test_steps_that_are_not_finite_teach_nothing() -> None:
    pruner = make(controller=ControllerConfig(kind="projected", warmup_steps=8, look_steps=2))
    train(pruner, torch.optim.AdamW(pruner.parameter_groups(lr=1e-3)), 4)
    controller = controller_of(pruner).controller
    before = controller.worth.clone()
    (pruner.model(batch()[0]).sum() * float("nan")).backward()
    pruner.step()
    assert torch.equal(controller.worth, before)
    assert pruner.sparsity.expected == pytest.approx(pruner.sparsity.target, abs=1e-3)


@pytest.mark.parametrize("steps", [0, 5, 2.5, "many"])
def test_total_steps_out_of_range(steps: object) -> None:
    with pytest.raises(ConfigError, match="total_steps out of range"):
        make(total_steps=steps, controller=None)


def test_two_schedules() -> None:
    with pytest.raises(ConfigError, match="two schedules"):
        make(total_steps=100)


def test_more_steps_than_were_announced() -> None:
    pruner = make(total_steps=12, controller=None)
    train(pruner, torch.optim.AdamW(pruner.parameter_groups(lr=1e-3)), 12)
    with pytest.warns(UserWarning, match="more steps than total_steps"):
        train(pruner, torch.optim.AdamW(pruner.parameter_groups(lr=1e-3)), 1)


def test_a_start_decides_until_the_loss_says_otherwise() -> None:
    """A function that names the last units is followed where the loss has no gradient."""
    torch.manual_seed(0)
    units = {"inner": 16}

    def last(model: nn.Module, groups: list[PruneGroup]) -> dict[str, np.ndarray]:
        units.update({group.name: group.units for group in groups})
        return {group.name: np.arange(group.units, dtype=float) + 1 for group in groups}

    pruner = make(start=last, total_steps=20, controller=None)
    optimizer = torch.optim.SGD(pruner.parameter_groups(lr=0.0))
    for step in range(12):
        optimizer.zero_grad()
        (0 * pruner.model(batch(step)[0]).sum()).backward()
        pruner.step()
    for name, kept in pruner.plan.kept.items():
        assert kept == tuple(range(units[name] - len(kept), units[name]))


@pytest.mark.parametrize("start", ["taylor", "fisher", "activation"])
def test_starts_that_look_at_batches(start: str) -> None:
    batches = [batch(seed)[0] if start == "activation" else batch(seed) for seed in range(2)]
    loss = None if start == "activation" else (lambda model, pair: F.cross_entropy(model(pair[0]), pair[1]))
    pruner = make(start=start, batches=batches, loss=loss, total_steps=20, controller=None)
    train(pruner, torch.optim.AdamW(pruner.parameter_groups(lr=1e-3)), 12)
    pruner.finalize()
    assert pruner.report.sparsity >= 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": "fisher"}, "needs batches"),
        ({"start": "fisher", "batches": [batch()]}, "needs a loss"),
        ({"start": "magnitud"}, "magnitude"),
        ({"start": lambda model, groups: [1.0, 2.0]}, "wrong number of importances"),
        ({"start": lambda model, groups: np.full(sum(g.units for g in groups), np.nan)}, "not finite"),
        ({"start": "magnitude", "controller": ControllerConfig()}, "takes no start"),
    ],
)
def test_starts_that_cannot_be(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(
            **{"total_steps": 20, "controller": None, **({"total_steps": None} if "controller" in settings else {})}
            | settings
        )


def test_a_copy_of_its_teacher_is_cut_by_magnitude_first() -> None:
    """Its loss has no gradient at the start: small units go, not arbitrary ones."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    with torch.no_grad():
        model[0].weight[::2] *= 1e-2
        model[2].weight[:, ::2] *= 1e-2
    inputs = torch.randn(32, 4)
    wanted = model(inputs).detach()
    pruner = wrap(model, inputs[:2], target_sparsity=0.4, total_steps=40)
    optimizer = torch.optim.AdamW(pruner.parameter_groups(lr=1e-4))
    model.train()
    for _ in range(20):
        optimizer.zero_grad()
        ((model(inputs) - wanted) ** 2).mean().backward()
        optimizer.step()
        pruner.step()
    (kept,) = pruner.plan.kept.values()
    assert set(kept) <= {1, 3, 5, 7}


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_after_the_cut_is_that_before_it(seed: int) -> None:
    torch.manual_seed(seed)
    pruner = wrap(Net(), batch()[0], target_sparsity=0.8, total_steps=60)
    train(pruner, torch.optim.AdamW(pruner.parameter_groups(lr=1e-2)), 31)
    held_out = batch(1000, 64)
    pruner.finalize(evaluate=lambda model: float(F.cross_entropy(model(held_out[0]), held_out[1])))
    report = pruner.report
    assert report.loss_after_cut == pytest.approx(report.loss_before_cut, rel=1e-4)
    assert report.target_at_cut == report.target_sparsity
