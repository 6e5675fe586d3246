"""wrap() in somebody's own loop: optimizers, precision, accumulation, checkpointing, compilation, processes."""

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import FAST, PUBLISHED, Net, adam, batch, controller_of, gates_of, make, train
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from l0prune import ControllerConfig, GateConfig, L0Pruner, wrap

# Most of these runs are too short to reach their target.
pytestmark = pytest.mark.filterwarnings("ignore:the gates are at an expected sparsity:UserWarning")


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
    pruner = make(0.5, controller=PUBLISHED)
    train(pruner, build(pruner.parameter_groups(adaptive=adaptive, lr=1e-3)), 300)
    expected, target = pruner.sparsity
    assert target == 0.5
    assert expected == pytest.approx(target, abs=0.1)


def test_weight_decay_and_learning_rate_of_the_weights_leave_the_gates_alone() -> None:
    pruner = make(controller=PUBLISHED)
    own, gates, multipliers = pruner.parameter_groups(lr=0.5, weight_decay=0.1)
    assert (own["lr"], own["weight_decay"]) == (0.5, 0.1)
    for group in (gates, multipliers):
        assert (group["lr"], group["weight_decay"]) == (PUBLISHED.learning_rate, 0.0)
    listed = [id(p) for group in (own, gates, multipliers) for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in pruner.model.parameters())


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
    return make(gates=GateConfig(drop_rate=0.5), **{"controller": PUBLISHED, **settings})


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
            model = lambda x: (gates_of(pruner).forget_sample(), pruner.model(x))[1]  # noqa: E731
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
@pytest.mark.parametrize("controller", [FAST, PUBLISHED])
def test_the_gated_model_compiles(controller: ControllerConfig) -> None:
    """The graph of the forward and backward pass, without a C++ compiler."""
    pruner, eager = make(controller=controller), make(controller=controller)
    compiled: Any = torch.compile(pruner.model, backend="aot_eager")
    x = batch()[0]
    pruner.model.eval(), eager.model.eval()
    torch.testing.assert_close(compiled(x), eager.model(x))
    train(pruner, adam(pruner), 10, call=compiled)
    assert not torch.equal(controller_of(pruner).controlled()[0], controller_of(eager).controlled()[0])
    pruned = pruner.finalize()
    torch.testing.assert_close(compiled.eval()(x), pruned(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.compile(pruned, backend="aot_eager")(x), pruned(x), atol=1e-5, rtol=1e-5)


KINDS = [(False, "lagrangian"), (True, "lagrangian"), (False, "projected")]


def replica(rank: int, folder: Path) -> None:
    """Trains with another process, once for each of `KINDS`."""
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    for unused, kind in KINDS:
        published = ControllerConfig(learning_rate=0.05, warmup_steps=0, quadratic_start=5.0)
        pruner = make(controller=published if kind == "lagrangian" else FAST)
        model = nn.parallel.DistributedDataParallel(pruner.model, find_unused_parameters=unused)
        optimizer = adam(pruner)
        torch.manual_seed(rank)
        for step in range(5):
            x, y = batch(2 * step + rank)
            optimizer.zero_grad()
            (F.cross_entropy(model(x), y) + pruner.penalty()).backward()
            optimizer.step()
            pruner.step()
        trained = {"parameters": list(pruner.model.parameters()), "plan": pruner.plan.to_json()}
        torch.save(trained, folder / f"{kind}-{unused}-{rank}.pt")
        pruner.finalize()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes have trained together, a file for each process and each of `KINDS`."""
    folder = tmp_path_factory.mktemp("replicas")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    commands = [[sys.executable, __file__, str(rank), folder] for rank in range(2)]
    processes = [subprocess.Popen(command, env=environment) for command in commands]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    return folder


@pytest.mark.parametrize(("unused", "kind"), KINDS)
def test_processes_that_train_together_stay_equal(unused: bool, kind: str, replicas: Path) -> None:
    one, other = (torch.load(replicas / f"{kind}-{unused}-{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one["parameters"], other["parameters"], strict=True))
    assert one["plan"] == other["plan"]


if __name__ == "__main__":
    replica(int(sys.argv[1]), Path(sys.argv[2]))
