"""wrap() in somebody's own training loop: it hits the target, and survives what loops do."""

import copy
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import l0prune
from l0prune import (
    ConfigError,
    ControllerConfig,
    DataError,
    GateConfig,
    GroupError,
    L0Pruner,
    Place,
    PlanError,
    PruneGroup,
    Role,
    TargetError,
    TraceError,
    TrainingError,
    consecutive,
    wrap,
)
from l0prune.plan import model_shapes

# Most of these runs are too short to reach their target.
pytestmark = pytest.mark.filterwarnings("ignore:the gates are at an expected sparsity:UserWarning")

FAST = ControllerConfig(learning_rate=0.1, warmup_steps=5, quadratic_start=20.0)


class Net(nn.Module):
    """A convolution with batch norm, a residual block, a linear head."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width)
        self.inner, self.outer = nn.Conv2d(width, 2 * width, 1), nn.Conv2d(2 * width, width, 1)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = x + self.outer(F.relu(self.inner(x)))
        return self.head(x.mean((2, 3)))


def batch(seed: int = 0, size: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, 1, 6, 6, generator=generator), torch.randint(0, 4, (size,), generator=generator)


def make(target: float = 0.5, **settings: Any) -> L0Pruner:
    torch.manual_seed(0)
    return wrap(Net(), batch()[0], target_sparsity=target, **{"controller": FAST, **settings})


def train(pruner: L0Pruner, optimizer: torch.optim.Optimizer, steps: int, call: Callable | None = None) -> None:
    model = pruner.model if call is None else call
    pruner.model.train()
    for step in range(steps):
        x, y = batch(step)
        optimizer.zero_grad()
        (F.cross_entropy(model(x), y) + pruner.penalty()).backward()
        optimizer.step()
        pruner.step()


def adam(pruner: L0Pruner, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(pruner.parameter_groups(lr=1e-3, **options))


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@settings(max_examples=8, deadline=None)
@given(st.floats(0.05, 0.85), st.sampled_from(["params", "macs"]), st.integers(1, 3))
def test_the_final_size_meets_the_target_from_below(target: float, metric: str, round_to: int) -> None:
    pruner = make(target, metric=metric, round_to=round_to)
    train(pruner, adam(pruner), 3)
    pruned, report = pruner.finalize(), pruner.report
    assert report.sparsity >= target
    assert report.params_after == count(pruned)
    assert report.max_relative_difference < 1e-5
    assert all(kept["kept"] % round_to in (0, kept["units"] % round_to) for kept in report.kept_units.values())
    assert all(p is not q for p in pruned.parameters() for q in pruner.model.parameters())


def test_evaluation_outputs_are_those_of_the_pruned_model() -> None:
    pruner = make(0.6)
    train(pruner, adam(pruner), 30)
    x = batch(99)[0]
    torch.testing.assert_close(pruner.model.eval()(x), pruner.finalize()(x), atol=1e-5, rtol=1e-5)


def test_the_pruned_model_is_a_plain_module_and_the_gated_one_stays_as_it_was() -> None:
    pruner = make(0.6)
    train(pruner, adam(pruner), 3)
    before = {name: tensor.clone() for name, tensor in pruner.model.state_dict().items()}
    pruned, dense = pruner.finalize(), Net()
    assert list(pruned.state_dict()) == list(dense.state_dict())
    assert [type(module) for module in pruned.modules()] == [type(module) for module in dense.modules()]
    assert not any(module._forward_pre_hooks for module in pruned.modules())
    assert vars(pruned).keys() - vars(dense).keys() == {"_l0prune_plan"}
    after = pruner.model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert pruner.report.steps == 3
    train(pruner, adam(pruner), 1)
    pruner.finalize()
    assert pruner.report.steps == 4


OPTIMIZERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], bool]] = {
    "SGD": (torch.optim.SGD, False),
    "SGD with momentum": (lambda groups: torch.optim.SGD(groups, momentum=0.9, nesterov=True), False),
    "Adam": (torch.optim.Adam, True),
    "fused AdamW": (lambda groups: torch.optim.AdamW(groups, fused=True), True),
    "NAdam": (torch.optim.NAdam, True),
    "RMSprop": (torch.optim.RMSprop, True),
    "Adagrad": (torch.optim.Adagrad, True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optimizer_brings_the_expected_sparsity_to_the_target(name: str) -> None:
    build, adaptive = OPTIMIZERS[name]
    pruner = make(0.5)
    train(pruner, build(pruner.parameter_groups(adaptive=adaptive, lr=1e-3)), 300)
    expected, target = pruner.sparsity
    assert target == 0.5
    assert expected == pytest.approx(target, abs=0.1)


def test_weight_decay_and_learning_rate_of_the_weights_leave_the_gates_alone() -> None:
    pruner = make()
    own, gates, multipliers = pruner.parameter_groups(lr=0.5, weight_decay=0.1)
    assert (own["lr"], own["weight_decay"]) == (0.5, 0.1)
    for group in (gates, multipliers):
        assert (group["lr"], group["weight_decay"]) == (FAST.learning_rate, 0.0)
    listed = [id(p) for group in (own, gates, multipliers) for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in pruner.model.parameters())


def test_a_frozen_weight_stays_out_of_the_groups() -> None:
    pruner = make()
    pruner.model.head.bias.requires_grad_(False)
    assert all(p is not pruner.model.head.bias for group in pruner.parameter_groups() for p in group["params"])


def test_autocast() -> None:
    pruner = make()
    optimizer = adam(pruner)
    pruner.model.train()
    for step in range(20):
        x, y = batch(step)
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(pruner.model(x), y) + pruner.penalty()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()
    assert pruner.penalty().dtype == torch.float32
    assert pruner.finalize()(batch()[0]).isfinite().all()


def test_a_loss_scaler_changes_nothing() -> None:
    pruner, scaler = make(), torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = adam(pruner)
    x, y = batch()
    scaler.scale(F.cross_entropy(pruner.model.train()(x), y) + pruner.penalty()).backward()
    scaler.unscale_(optimizer)
    expected = [p.grad.clone() for group in pruner.parameter_groups()[1:] for p in group["params"]]
    scaler.step(optimizer)
    scaler.update()
    pruner.step()
    assert all(grad.isfinite().all() and grad.abs().max() < 50 for grad in expected)
    # A step that the scaler skips, because of an overflow, is no error.
    optimizer.zero_grad()
    scaler.scale(F.cross_entropy(pruner.model(x), y) * float("inf") + pruner.penalty()).backward()
    scaler.step(optimizer)
    scaler.update()
    pruner.step()
    assert scaler.get_scale() < 1024.0


def test_gradients_accumulate_over_micro_batches() -> None:
    """With all gates open there is nothing random: the halves' mean gradient is the whole batch's."""
    gradients = []
    for parts in (1, 2):
        pruner = make()
        pruner.model.eval()
        x, y = batch()
        for part_x, part_y in zip(x.chunk(parts), y.chunk(parts), strict=True):
            loss = F.cross_entropy(pruner.model(part_x), part_y) + pruner.penalty()
            (loss / parts).backward()
        gradients.append([p.grad.clone() for p in pruner.model.parameters() if p.grad is not None])
    assert len(gradients[0]) > 5
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def undecided(**settings: Any) -> L0Pruner:
    """Gates of which each draw closes about half."""
    return make(gates=GateConfig(drop_rate=0.5), **settings)


def gate_gradient(pruner: L0Pruner) -> Any:
    return next(iter(pruner.parameter_groups()[1]["params"])).grad


def test_each_backward_pass_is_followed_by_new_gates() -> None:
    pruner = undecided()
    x = batch()[0]
    pruner.model.train()
    pruner.model.norm.eval()
    first = pruner.model(x)
    assert torch.equal(first, pruner.model(x))
    first.sum().backward()
    second = pruner.model(x)
    assert not torch.equal(first, second)
    # A pass whose loss is dropped does not hold its gates beyond the step.
    pruner.step()
    assert not torch.equal(second, pruner.model(x))
    with torch.no_grad():
        pruner.step()
        assert not torch.equal(pruner.model(x), pruner.model(x))
    pruner.model.eval()
    assert torch.equal(pruner.model(x), pruner.model(x))


def test_gates_follow_the_model_whatever_mode_its_parts_are_in() -> None:
    model: Any = nn.Sequential(Net(), nn.Linear(4, 4))
    wrap(model, batch()[0], target_sparsity=0.5, gates=GateConfig(drop_rate=0.5))
    for network in (model, copy.deepcopy(model)):
        network.train()
        network[0].eval()
        network(batch()[0]).pow(2).sum().backward()
        (gradient,) = (p.grad for name, p in network.named_parameters() if name.endswith("log_alpha"))
        assert gradient.count_nonzero() > 10
    model.eval()
    model[0].inner.train()
    torch.testing.assert_close(model[0].inner.weight, model.eval()[0].inner.weight)


@pytest.mark.parametrize("whole", [False, True], ids=["a layer", "the whole model"])
def test_checkpointing_changes_no_gradient_of_two_passes_before_one_backward(whole: bool) -> None:
    def gradients(checkpointed: bool) -> Tensor:
        pruner = undecided()
        model: Any = pruner.model
        layer = model.inner.forward
        torch.manual_seed(1)
        if checkpointed and not whole:
            model.inner.forward = lambda x: checkpoint(layer, x, use_reentrant=False)
        call = partial(checkpoint, model, use_reentrant=False) if checkpointed and whole else model
        if whole:
            # Such passes draw gates of their own.
            model = lambda x: (pruner._gated.gates.forget_sample(), pruner.model(x))[1]  # noqa: E731
            call = call if checkpointed else model
        (call(batch(0)[0]) - call(batch(1)[0])).pow(2).mean().backward()
        return torch.cat([p.grad.flatten() for p in pruner.model.parameters() if p.grad is not None])

    torch.testing.assert_close(gradients(True), gradients(False))


def test_parts_of_the_model_may_run_by_themselves_and_accumulate_gradients() -> None:
    pruner = undecided()
    model: Any = pruner.model.train()
    x = batch()[0]
    for part in x.chunk(2):
        model.head(model.outer(F.relu(model.inner(F.relu(model.stem(part))))).mean((2, 3))).pow(2).mean().backward()
    assert gate_gradient(pruner).count_nonzero() > 5


def test_a_pass_without_gradients_takes_none_from_the_next() -> None:
    pruner = undecided()
    model: Any = pruner.model.train()
    x = batch()[0]
    for _ in range(2):
        with torch.no_grad():
            told = model.outer(F.relu(model.inner(F.relu(model.stem(x + 1)))))
        pruner.model.zero_grad()
        (model.outer(F.relu(model.inner(F.relu(model.stem(x))))) - told).pow(2).mean().backward()
        assert gate_gradient(pruner).count_nonzero() > 5
        pruner.step()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_the_gated_model_compiles() -> None:
    """The graph of the forward and backward pass, without a C++ compiler."""
    pruner, eager = make(), make()
    compiled: Any = torch.compile(pruner.model, backend="aot_eager")
    x = batch()[0]
    pruner.model.eval(), eager.model.eval()
    torch.testing.assert_close(compiled(x), eager.model(x))
    train(pruner, adam(pruner), 10, call=compiled)
    moved = pruner.parameter_groups()[1]["params"][0]
    assert not torch.equal(moved, eager.parameter_groups()[1]["params"][0])
    pruned = pruner.finalize()
    torch.testing.assert_close(compiled.eval()(x), pruned(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.compile(pruned, backend="aot_eager")(x), pruned(x), atol=1e-5, rtol=1e-5)


def test_training_goes_on_from_a_state_dict_as_if_nothing_had_happened(tmp_path: Path) -> None:
    def states(pruner: L0Pruner, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        return {
            "model": pruner.model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "random": torch.get_rng_state(),
        }

    straight = make()
    optimizer = adam(straight)
    train(straight, optimizer, 6)
    torch.save(states(straight, optimizer), tmp_path / "state.pt")
    train(straight, optimizer, 6)
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = make()
    again = adam(resumed)
    resumed.model.load_state_dict(saved["model"])
    again.load_state_dict(saved["optimizer"])
    torch.set_rng_state(saved["random"])
    assert resumed.sparsity.target == 0.5
    train(resumed, again, 6)
    first, second = straight.model.state_dict(), resumed.model.state_dict()
    assert first.keys() == second.keys()
    assert sum("l0prune" in name for name in first) == 3
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert straight.plan.to_json() == resumed.plan.to_json()


def test_an_averaged_copy_has_gates_of_its_own_and_prunes_alike() -> None:
    pruner = make()
    average = torch.optim.swa_utils.AveragedModel(
        pruner.model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5)
    )
    optimizer = adam(pruner)
    for _ in range(8):
        train(pruner, optimizer, 1)
        average.update_parameters(pruner.model)
    names = dict(pruner.model.named_parameters())
    gates = next(name for name in names if name.endswith("log_alpha"))
    mine, theirs = names[gates], dict(average.module.named_parameters())[gates]
    assert not torch.equal(mine, theirs)
    # The averaged weights and gates, finalised by the pruner they came from.
    kept = copy.deepcopy(pruner.model.state_dict())
    pruner.model.load_state_dict(average.module.state_dict())
    x = batch()[0]
    average.eval()
    torch.testing.assert_close(pruner.finalize()(x), average(x), atol=1e-5, rtol=1e-5)
    pruner.model.load_state_dict(kept)


def replica(rank: int, port: int, unused: bool, path: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"tcp://localhost:{port}", rank=rank, world_size=2)
    pruner = make(controller=ControllerConfig(learning_rate=0.05, warmup_steps=0, quadratic_start=5.0))
    model = nn.parallel.DistributedDataParallel(pruner.model, find_unused_parameters=unused)
    optimizer = adam(pruner)
    torch.manual_seed(rank)
    for step in range(5):
        x, y = batch(2 * step + rank)
        optimizer.zero_grad()
        (F.cross_entropy(model(x), y) + pruner.penalty()).backward()
        optimizer.step()
        pruner.step()
    torch.save({"parameters": list(pruner.model.parameters()), "plan": pruner.plan.to_json()}, f"{path}/{rank}.pt")
    pruner.finalize()
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("unused", [False, True])
def test_processes_that_train_together_stay_equal(unused: bool, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    arguments = [str(port), str(int(unused)), str(tmp_path)]
    processes = [subprocess.Popen([sys.executable, __file__, str(rank), *arguments]) for rank in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one["parameters"], other["parameters"], strict=True))
    assert one["plan"] == other["plan"]


def test_a_pruned_model_is_pruned_again_and_the_plans_compose(tmp_path: Path) -> None:
    dense = Net()
    first = wrap(copy.deepcopy(dense), batch()[0], target_sparsity=0.3, controller=FAST)
    train(first, adam(first), 20)
    once = first.finalize()
    second = wrap(once, batch()[0], target_sparsity=0.4, controller=FAST)
    train(second, adam(second), 20)
    twice = second.finalize()
    assert second.plan.shapes == model_shapes(dense)
    assert all(set(second.plan.kept[name]) <= set(kept) for name, kept in first.plan.kept.items())
    l0prune.save(twice, second.plan, tmp_path)
    again = l0prune.load(tmp_path, Net)
    x = batch()[0]
    assert torch.equal(again(x), twice(x))
    # A loaded model remembers its plan too.
    third = wrap(again, batch()[0], target_sparsity=0.2, controller=FAST)
    train(third, adam(third), 5)
    third.finalize()
    assert third.plan.shapes == model_shapes(dense)
    with pytest.raises(PlanError, match="another architecture"):
        l0prune.load(tmp_path, lambda: Net(width=9))


def test_a_pruned_model_is_pruned_again_in_the_same_units_or_not_at_all() -> None:
    model, x = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2)), torch.randn(3, 4)
    made, read, index = Role.PRODUCES, Role.CONSUMES, consecutive(4, 4)
    places = (("0.weight", 0, made), ("0.bias", 0, made), ("2.weight", 1, read))
    fours = PruneGroup(
        name="fours", kind="four", units=4,
        places=tuple(Place(tensor=tensor, dim=dim, role=role, index=index) for tensor, dim, role in places),
    )  # fmt: skip
    first = wrap(model, x, target_sparsity=0.3, groups=[fours], controller=FAST)
    first.step()
    once = first.finalize()
    names = list(once.state_dict())
    with pytest.raises(PlanError, match="cuts through units of the first"):
        wrap(once, x, target_sparsity=0.3)
    assert list(once.state_dict()) == names
    second = wrap(once, x, target_sparsity=0.3, groups=first.plan.remaining_groups())
    assert second.plan.kept_counts["fours"] < first.plan.kept_counts["fours"]


def test_a_sequential_model_has_as_many_layers_as_before() -> None:
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    pruner = wrap(model, torch.randn(2, 4), target_sparsity=0.5)
    assert len(model) == 3
    assert pruner.model is model
    train_once = pruner.penalty() + model(torch.randn(2, 4)).sum()
    train_once.backward()
    adam(pruner).step()
    pruner.step()
    assert isinstance(pruner.finalize(), nn.Sequential)


def test_names_of_torch_pruning_mean_what_they_say() -> None:
    model = Net()
    pruner = L0Pruner(model, batch()[0], pruning_ratio=0.4, ignored_layers=[model.stem], round_to=2, controller=FAST)
    assert [group.name for group in pruner.inspection.groups] == ["inner"]
    assert pruner._gated.target_sparsity == 0.4
    seen = []
    L0Pruner(
        Net(),
        {"picture": batch()[0]},
        pruning_ratio=0.4,
        forward_fn=lambda model, inputs: seen.append(set(inputs)) or {"y": model(inputs["picture"]), "n": None},
        output_transform=lambda outputs: outputs["y"],
    )
    assert {"picture"} in seen


def test_heads_can_be_told() -> None:
    model = Net()
    found = l0prune.inspect(model, batch()[0], num_heads={model.inner: 4})
    assert {group.name: group.units for group in found.groups} == {"stem": 8, "inner": 4}
    with pytest.raises(GroupError, match="heads do not divide the outputs: inner"):
        l0prune.inspect(model, batch()[0], num_heads={model.inner: 5})


@pytest.mark.parametrize("inputs", [batch()[0], (batch()[0],), [batch()[0]], {"x": batch()[0]}])
def test_example_inputs_come_as_one_tensor_in_order_or_by_name(inputs: Any) -> None:
    assert len(l0prune.inspect(Net(), inputs).groups) == 2


# Bad input: one clear error each, and the model as it was.


class Fixed(nn.Module):
    """Nothing between input and output."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.only(x)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"target_sparsity": 1.5}, TargetError, "out of range"),
        ({"target_sparsity": "0.5"}, TargetError, "not a number.*got '0.5'"),
        ({"target_sparsity": 0.999}, TargetError, "more than can be removed.*expected at most 0.9"),
        ({"target_sparsity": 0.999, "metric": "macs"}, TargetError, "multiply-accumulates"),
        ({"metric": "latency"}, ConfigError, "unknown metric.*params or macs"),
        ({"pruning_ratio": 0.5}, ConfigError, "give one of"),
        ({"ignored": ["stam"]}, GroupError, "no such module.*stam; did you mean 'stem'"),
        ({"ignored": "stam"}, GroupError, "no such module.*stam; did you mean 'stem'"),
        ({"ignored": 5}, GroupError, "no such module in the model: int"),
        ({"ignored_layers": nn.Linear(2, 2)}, GroupError, "no such module"),
        ({"ignored_layers": [nn.Linear(2, 2)]}, GroupError, "no such module"),
        ({"ignored": ["stem", "inner"]}, GroupError, "nothing in the model can be pruned: Net"),
        ({"time_limit": 0.0}, TraceError, "took too long.*groups="),
        ({"round_to": 2, "gates": GateConfig(round_to=4)}, ConfigError, "given twice"),
        (
            {"controller": {"warmup_steps": 3}},
            ConfigError,
            r"controller has the wrong type.*ControllerConfig\(\.\.\.\)",
        ),
        ({"gates": {"drop_rate": 0.1}}, ConfigError, r"gates has the wrong type.*GateConfig\(\.\.\.\)"),
        ({"output_transform": lambda y: None}, DataError, "no floating-point tensor to compare"),
    ],
)
def test_bad_settings(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    model = Net()
    names = list(model.state_dict())
    with pytest.raises(error, match=message):
        L0Pruner(model, batch()[0], **{"target_sparsity": 0.5, **settings})
    assert list(model.state_dict()) == names


@pytest.mark.parametrize("name", ["ignored", "ignored_layers"])
def test_what_to_ignore_may_be_one_module_or_its_name(name: str) -> None:
    for one in (lambda model: model.stem, lambda model: "stem", lambda model: [model.stem]):
        model = Net()
        pruner = wrap(model, batch()[0], target_sparsity=0.2, **{name: one(model)})
        assert [group.name for group in pruner.inspection.groups] == ["inner"]


@pytest.mark.parametrize("model", [Fixed(), nn.ReLU()])
def test_a_model_without_anything_to_prune(model: nn.Module) -> None:
    with pytest.raises(GroupError, match=f"nothing in the model can be pruned: {type(model).__name__}"):
        wrap(model, torch.randn(2, 6), target_sparsity=0.5)


def layers(*more: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), *more)


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit.script.*:FutureWarning", "ignore:.*torch.jit.script.*:DeprecationWarning"
)
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: layers(nn.LazyLinear(3)), TraceError, r"no shape yet: 2\.weight; run one batch"),
        (
            lambda: torch.jit.script(layers(nn.Linear(8, 3))),
            TraceError,
            "scripted module .*: RecursiveScriptModule; pass",
        ),
        (lambda: layers(torch.jit.script(nn.Linear(8, 3))), TraceError, "scripted module cannot be followed: 2; pass"),
        (lambda: layers(nn.Linear(8, 3)).to("meta"), DataError, r"on the meta device.*to_empty"),
    ],
    ids=["lazy", "scripted", "partly scripted", "meta"],
)
@pytest.mark.parametrize("groups", [None, ()])
def test_models_that_cannot_be_followed(
    make: Callable[[], nn.Module], error: type[Exception], message: str, groups: tuple[()] | None
) -> None:
    model = make()
    x = torch.randn(2, 6, device=next(model.parameters()).device)
    with pytest.raises(error, match=message):
        wrap(model, x, target_sparsity=0.5, groups=groups)


@pytest.mark.parametrize("inputs", [torch.randn(2, 3, 6, 6), (), {"y": torch.randn(2, 1, 6, 6)}])
def test_inputs_of_the_wrong_shape_or_name(inputs: Any) -> None:
    with pytest.raises(TraceError, match=r"the forward pass failed on the example inputs"):
        wrap(Net(), inputs, target_sparsity=0.5)


def test_inputs_on_another_device() -> None:
    with pytest.raises(DataError, match=r"another device than the model \(got meta, expected cpu"):
        wrap(Net(), batch()[0].to("meta"), target_sparsity=0.5)


def test_finalize_before_any_step() -> None:
    pruner = make()
    with pytest.raises(TrainingError, match="before any step"):
        pruner.finalize()
    with pytest.raises(TrainingError, match=r"call finalize\(\) first"):
        _ = pruner.report


def test_a_cut_before_the_target_is_reached_warns() -> None:
    pruner = make(0.5)
    train(pruner, adam(pruner), 1)
    with pytest.warns(UserWarning, match=r"expected sparsity of 0\.0\d, the target is 0\.50.*train longer"):
        pruner.finalize()
    assert pruner.report.expected_sparsity < 0.1
    train(pruner, adam(pruner), 200)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pruner.finalize()
    assert pruner.report.expected_sparsity == pytest.approx(pruner.sparsity.expected)


def test_a_loss_that_is_nan_names_the_step_and_leaves_the_controller_as_it_was() -> None:
    pruner = make()
    optimizer = adam(pruner)
    train(pruner, optimizer, 3)
    before = [p.detach().clone() for group in pruner.parameter_groups()[1:] for p in group["params"]]
    x, y = batch()
    optimizer.zero_grad()
    (F.cross_entropy(pruner.model(x), y) * float("nan") + pruner.penalty()).backward()
    optimizer.step()
    with pytest.raises(TrainingError, match="NaN or infinite: step 3"):
        pruner.step()
    after = [p.detach() for group in pruner.parameter_groups()[1:] for p in group["params"]]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_nan_right_after_loading_goes_back_to_what_was_loaded() -> None:
    trained, resumed = make(), make()
    train(trained, adam(trained), 3)
    resumed.model.load_state_dict(trained.model.state_dict())
    optimizer = adam(resumed)
    (resumed.model(batch()[0]).sum() * float("nan") + resumed.penalty()).backward()
    optimizer.step()
    with pytest.raises(TrainingError, match="NaN or infinite: step 3"):
        resumed.step()
    for mine, theirs in zip(resumed._state.controlled(), trained._state.controlled(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_model_may_change_its_dtype_after_it_is_wrapped(dtype: torch.dtype) -> None:
    pruner = make()
    before = pruner._state.controlled_now()
    pruner.model.to(dtype)
    for now, then in zip(pruner._state.controlled(), before, strict=True):
        assert now.dtype == then.dtype
        assert torch.equal(now, then)
    optimizer, (x, y) = adam(pruner), batch()
    (F.cross_entropy(pruner.model(x.to(dtype)).float(), y) + pruner.penalty()).backward()
    optimizer.step()
    pruner.step()
    assert pruner.finalize()(x.to(dtype)).dtype == dtype
    assert pruner.report.max_relative_difference < (0.4 if dtype == torch.bfloat16 else 1e-7)


def test_parameters_may_be_replaced_by_loading() -> None:
    """The dense norm, out of sight while gates are on, gets the loaded parameters too."""

    def build(scale: float) -> L0Pruner:
        torch.manual_seed(0)
        model: Any = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 4))
        nn.init.constant_(model[1].weight, scale)
        return wrap(model, torch.ones(2, 8).diff(prepend=torch.zeros(2, 1)), target_sparsity=0.5, controller=FAST)

    x = torch.randn(5, 8)
    one, other = build(1.0), build(2.0)
    other._state.count()
    one.model.load_state_dict(other.model.state_dict(), assign=True)
    torch.testing.assert_close(one.finalize()(x), other.finalize()(x))


def test_a_model_is_not_wrapped_twice() -> None:
    pruner = make()
    with pytest.raises(GroupError, match="has gates already"):
        wrap(pruner.model, batch()[0], target_sparsity=0.5)


if __name__ == "__main__":
    replica(int(sys.argv[1]), int(sys.argv[2]), bool(int(sys.argv[3])), sys.argv[4])
