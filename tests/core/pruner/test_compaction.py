"""wrap(compaction=...): closed units leave in one's own loop, and all that is promised without it holds."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import PUBLISHED, Net, adam, batch, controller_of, count, gates_of, make, train
from torch.nn import functional as F

import l0prune
from l0prune import ControllerConfig, L0Pruner, TrainingError, wrap
from l0prune.config import CompactionConfig
from l0prune.distributed import World
from l0prune.proof import relative_difference
from l0prune.support import DDP_IGNORES

COMPACTION = CompactionConfig(every_steps=2, patience=2, closed_below=0.3, least_share=0.0)
KINDS = {
    "projected": {"total_steps": 24, "controller": None},
    "lagrangian": {"controller": ControllerConfig(learning_rate=0.3, warmup_steps=5, quadratic_start=20.0)},
    "pi": {"controller": ControllerConfig(kind="pi", learning_rate=0.3, warmup_steps=5)},
}
STEPS = 40


def shrinking(kind: str = "projected", **more: Any) -> L0Pruner:
    return make(0.6, **{**KINDS[kind], "compaction": COMPACTION, **more})


def run(pruner: L0Pruner, *optimizers: torch.optim.Optimizer, first: int = 0, steps: int = STEPS) -> list[int]:
    """Train; the steps, counted from 1, at which units left."""
    cuts = []
    pruner.model.train()
    for step in range(first, steps):
        x, y = batch(step)
        for optimizer in optimizers:
            optimizer.zero_grad()
        (F.cross_entropy(pruner.model(x), y) + pruner.penalty()).backward()
        for optimizer in optimizers:
            optimizer.step()
        if pruner.step(*optimizers):
            cuts.append(step + 1)
    return cuts


@pytest.mark.filterwarnings("ignore:more steps than total_steps")
@pytest.mark.parametrize("kind", KINDS)
def test_units_leave_meanwhile_and_the_result_is_as_exact_as_without(kind: str, tmp_path: Path) -> None:
    pruner, dense = shrinking(kind), count(Net())
    optimizer = adam(pruner)
    assert run(pruner, optimizer)
    # The network itself is smaller, and the optimizer has what is left.
    weights = [p for p in pruner.model.parameters() if p.requires_grad]
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} <= {id(p) for p in weights}
    assert all(optimizer.state[p]["exp_avg"].shape == p.shape for p in held)
    special = {id(p) for p in controller_of(pruner).controlled()}
    assert sum(p.numel() for p in weights if id(p) not in special) < dense
    smaller = pruner.finalize()
    report = pruner.report
    assert report.params_before == dense
    assert report.params_after == count(smaller) <= 0.4 * dense
    assert report.max_relative_difference < 1e-5
    assert {name: group["units"] for name, group in report.kept_units.items()} == {"stem": 8, "inner": 16}
    size = pruner.inspection.parameter_model
    assert size.exact(torch.tensor([group["kept"] for group in report.kept_units.values()]).numpy()) == count(smaller)
    # The plan is the dense network's.
    l0prune.save(smaller, pruner.plan, tmp_path)
    x = batch(99)[0]
    assert torch.equal(l0prune.load(tmp_path, Net)(x), smaller(x))
    assert relative_difference(pruner.model.eval()(x), smaller(x)) < 1e-5


@pytest.mark.filterwarnings("ignore:more steps than total_steps")
@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_changes_no_output_and_no_choice(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pruner, seen = shrinking(kind), []
    controller, x = controller_of(pruner), batch(99)[0]
    cut = controller.cut

    def watched(kept: Any, optimizers: Any) -> None:
        pruner.model.eval()
        outputs, plan = pruner.model(x), pruner.plan
        cut(kept, optimizers)
        seen.append(relative_difference(outputs, pruner.model(x)))
        assert pruner.plan.to_json() == plan.to_json()
        pruner.model.train()

    monkeypatch.setattr(controller, "cut", watched)
    run(pruner, adam(pruner))
    assert seen
    assert max(seen) < 1e-5


@pytest.mark.filterwarnings("ignore:more steps than total_steps")
@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_state_goes_on_across_cuts_as_if_nothing_had_happened(kind: str, tmp_path: Path) -> None:
    whole = shrinking(kind)
    cuts = run(whole, adam(whole))
    for stop in {cuts[0] - 1, cuts[0], cuts[-1] + 1}:
        begun = shrinking(kind)
        optimizer = adam(begun)
        run(begun, optimizer, steps=stop)
        states = begun.model.state_dict(), optimizer.state_dict(), torch.get_rng_state()
        torch.save(states, tmp_path / "state.pt")
        model, of_optimizer, random = torch.load(tmp_path / "state.pt", weights_only=True)
        resumed = shrinking(kind)
        resumed.model.load_state_dict(model)
        again = adam(resumed)
        again.load_state_dict(of_optimizer)
        torch.set_rng_state(random)
        assert run(resumed, again, first=stop) == [step for step in cuts if step > stop]
        one, other = whole.model.state_dict(), resumed.model.state_dict()
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
        assert whole.plan.to_json() == resumed.plan.to_json()


def two(pruner: L0Pruner) -> list[torch.optim.Optimizer]:
    (own,) = pruner.parameter_groups()
    matrices, others = [p for p in own["params"] if p.ndim == 2], [p for p in own["params"] if p.ndim != 2]
    return [torch.optim.Muon(matrices, lr=1e-3), torch.optim.SGD(others, lr=1e-2, momentum=0.9)]


OPTIMIZERS: dict[str, Callable[[L0Pruner], list[torch.optim.Optimizer]]] = {
    "two": two,
    "one whose state is a row and a column": lambda p: [torch.optim.Adafactor(p.parameter_groups(lr=1e-2))],
    "every parameter": lambda p: [torch.optim.AdamW(p.model.parameters(), fused=True)],
}


@pytest.mark.filterwarnings("ignore:more steps than total_steps")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_shrink_too(name: str) -> None:
    pruner = shrinking()
    optimizers = OPTIMIZERS[name](pruner)
    assert run(pruner, *optimizers)
    assert count(pruner.finalize()) <= 0.4 * count(Net())


def test_a_state_that_cannot_be_cut_is_refused_and_nothing_is_cut() -> None:
    pruner = shrinking()
    optimizer = adam(pruner)
    optimizer.step = lambda: None  # type: ignore[method-assign, assignment]
    weight = optimizer.param_groups[0]["params"][0]
    optimizer.state[weight]["flat"] = [torch.zeros(weight.numel())]
    line = (
        r"^compaction cannot cut the optimizer's state: AdamW \(got \[72\] for a parameter of \[8, 1, 3, 3\]\); train "
    )
    with pytest.raises(TrainingError, match=line):
        run(pruner, optimizer)
    assert len(gates_of(pruner).log_alpha) == 24
    assert pruner.finalize()(batch()[0]).isfinite().all()


def test_optimizers_that_do_not_train_every_weight_are_named() -> None:
    line = r"^compaction needs the optimizer of every weight: stem.weight .got 10 of 10 weights in none that was given"
    with pytest.raises(TrainingError, match=line):
        train(shrinking(), adam(shrinking()), 1)
    pruner = shrinking()
    with pytest.raises(TrainingError, match=r"1 of 10 weights"):
        run(pruner, torch.optim.AdamW([p for p in pruner.model.parameters() if p.shape != (4,)]))
    # Weights that are frozen need no optimizer.
    pruner = shrinking()
    pruner.model.head.bias.requires_grad_(False)  # type: ignore[union-attr]
    run(pruner, adam(pruner), steps=1)


@pytest.mark.filterwarnings("ignore:more steps than total_steps")
def test_an_optimizer_from_before_a_state_with_cuts_was_loaded_is_refused() -> None:
    begun, resumed = shrinking(), shrinking()
    run(begun, adam(begun), steps=24)
    stale = adam(resumed)
    resumed.model.load_state_dict(begun.model.state_dict())
    with pytest.raises(TrainingError, match="made after a state was loaded"):
        resumed.step(stale)
    resumed.step(adam(resumed))


@pytest.mark.filterwarnings("ignore:more steps than total_steps")
def test_what_the_model_carries_is_there_after_a_cut() -> None:
    pruner = shrinking("lagrangian")
    assert run(pruner, adam(pruner))
    names = dict(pruner.model.named_parameters())
    assert [name for name in getattr(pruner.model, DDP_IGNORES) if name in names] == getattr(pruner.model, DDP_IGNORES)
    # A copy computes the same, and takes the state of its original.
    average, x = copy.deepcopy(pruner.model).eval(), batch()[0]
    assert torch.equal(average(x), pruner.model.eval()(x))
    average.load_state_dict(pruner.model.state_dict())
    # A copy from before the cuts is cut when it is given a state from after them.
    early = copy.deepcopy(shrinking("lagrangian").model)
    early.load_state_dict(pruner.model.state_dict())
    assert torch.equal(early.eval()(x), pruner.model.eval()(x))
    # In training mode gates are drawn.
    pruner.model.train()
    pruner.model.norm.eval()  # type: ignore[union-attr]
    gates = gates_of(pruner)
    with torch.no_grad():
        gates.log_alpha.zero_()
        first = pruner.model(x)
        pruner.step(adam(pruner))
        assert not torch.equal(first, pruner.model(x))


@pytest.mark.filterwarnings("ignore:more steps than total_steps")
def test_several_processes_are_told_when_what_averages_their_gradients_must_be_made_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("l0prune.pruner.pruner.world", lambda: World(rank=0, size=2))
    pruner = shrinking()
    with pytest.warns(UserWarning, match="DistributedDataParallel anew"):
        run(pruner, adam(pruner))


def test_without_compaction_a_state_has_the_names_it_always_had() -> None:
    names = {
        name.rpartition("l0prune.")[2] for name in make(controller=PUBLISHED).model.state_dict() if "l0prune" in name
    }
    assert names == {"steps", "gates.log_alpha", "controller.multipliers"}


def test_true_is_the_rhythm_of_compress() -> None:
    compactor = controller_of(shrinking(compaction=True)).compactor
    assert compactor is not None
    assert compactor.config == CompactionConfig()
    for off in (None, False, CompactionConfig(enabled=False)):
        assert controller_of(shrinking(compaction=off)).compactor is None


def test_a_network_under_a_time_shrinks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The size is that of a latency model, and the cut is measured against the dense network."""
    from l0prune.size.latency import metric
    from l0prune.size.latency.model import LatencyModel

    def fitted(model: Any, groups: Any, *_: Any, **__: Any) -> Any:
        size = l0prune.size.parameter_size(model, groups)
        femtoseconds = type(size)(groups, {m: 10**9 * c for m, c in size.coefficients.items()}, "femtoseconds")
        return LatencyModel(size=femtoseconds, dense_ms=femtoseconds.total / 10**12, error=0.0, round_to=1)

    def met(gated: Any, dense: Any, *_: Any, **__: Any) -> dict[str, float]:
        before, after = count(dense), count(gated.pruned()[0])
        return {"latency_before_ms": before / 1000, "latency_after_ms": after / 1000, "speedup": before / after}

    monkeypatch.setattr(metric, "measure_latency", fitted)
    monkeypatch.setattr(metric, "meet_target", met)
    torch.manual_seed(0)
    dense = count(Net())
    pruner = wrap(
        Net(), batch()[0], metric="latency", target_ms=0.4 * dense / 1000, total_steps=24, compaction=COMPACTION
    )
    assert run(pruner, adam(pruner), steps=24)
    smaller = pruner.finalize()
    assert count(smaller) <= 0.4 * dense
    assert pruner.report.measured["latency_before_ms"] == dense / 1000
    assert pruner.report.sparsity == pytest.approx(1 - count(smaller) / dense)
