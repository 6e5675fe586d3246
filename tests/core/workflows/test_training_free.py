"""prune(): the target met in one call, exact without a repair, better with one, composing with all else."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_training import FAST, Net, adam, batch, count, train
from torch import Tensor, nn
from torch.nn import functional as F

import l0prune
from l0prune import ConfigError, DataError, GroupError, PlanError, TargetError, apply_plan, plan_of, prune
from l0prune.support.modules import model_shapes

X = batch()[0]
BATCHES = [batch(seed) for seed in range(4)]


def loss(model: nn.Module, one: Any) -> Tensor:
    return F.cross_entropy(model(one[0]), one[1])


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return Net()


@settings(max_examples=12, deadline=None)
@given(
    st.floats(0.05, 0.85),
    st.sampled_from(["params", "macs"]),
    st.integers(1, 3),
    st.sampled_from(["magnitude", "activation", "taylor", "fisher", "random"]),
    st.booleans(),
)
def test_the_size_meets_the_target_from_below(
    target: float, metric: str, round_to: int, importance: str, repair: bool
) -> None:
    model = net()
    more: dict[str, Any] = {"metric": metric, "round_to": round_to, "importance": importance, "repair": repair}
    pruned = prune(model, X, target_sparsity=target, batches=BATCHES, loss=loss, **more)
    found = l0prune.inspect(model, X)
    size = found.parameter_model if metric == "params" else found.mac_model
    assert size is not None
    plan = plan_of(pruned)
    kept = torch.tensor([plan.kept_counts[group.name] for group in found.groups]).numpy()
    assert size.exact(kept) <= (1 - target) * size.total
    assert found.parameter_model.exact(kept) == count(pruned)
    assert all(k % round_to in (0, g.units % round_to) for k, g in zip(kept, found.groups, strict=True))


@pytest.mark.parametrize("importance", ["magnitude", "taylor"])
def test_without_a_repair_it_is_the_plan_applied_and_nothing_else(importance: str) -> None:
    model = net().train()
    before = copy.deepcopy(model)
    pruned = prune(model, X, target_sparsity=0.5, importance=importance, batches=BATCHES, loss=loss)
    by_hand = apply_plan(copy.deepcopy(before), plan_of(pruned))
    assert all(
        torch.equal(a, b) for a, b in zip(pruned.state_dict().values(), by_hand.state_dict().values(), strict=True)
    )
    assert [type(module) for module in pruned.modules()] == [type(module) for module in before.modules()]
    assert not any(module.training for module in pruned.modules())
    assert all(p.requires_grad and p.is_leaf for p in pruned.parameters())
    # The caller's own model is as it was, and shares nothing with the copy.
    assert all(module.training for module in model.modules())
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), before.state_dict().values(), strict=True)
    )
    assert not any(p is q for p in model.parameters() for q in pruned.parameters())
    assert vars(pruned).keys() - vars(before).keys() == {"_l0prune_plan"}


def test_a_repair_keeps_plan_and_size_and_comes_nearer_to_the_dense_model() -> None:
    dense = net().eval()
    plain, repaired = (
        prune(dense, X, target_sparsity=0.5, batches=[one[0] for one in BATCHES], repair=repair)
        for repair in (False, True)
    )
    assert plan_of(plain).kept == plan_of(repaired).kept
    assert model_shapes(plain) == model_shapes(repaired)
    fresh = batch(99)[0]
    with torch.no_grad():
        errors = [F.mse_loss(one(fresh), dense(fresh)) for one in (plain, repaired)]
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.filterwarnings("ignore:the gates are at an expected sparsity:UserWarning")
def test_a_pruned_model_is_pruned_again_saved_and_wrapped(tmp_path: Path) -> None:
    once = prune(net(), X, target_sparsity=0.3)
    twice = prune(once, X, target_sparsity=0.3, batches=[X], repair=True)
    plan = plan_of(twice)
    assert plan.shapes == model_shapes(Net())
    assert all(set(plan.kept[name]) <= set(kept) for name, kept in plan_of(once).kept.items())
    l0prune.save(twice, plan, tmp_path)
    again = l0prune.load(tmp_path, Net)
    assert torch.equal(again(X), twice(X))
    assert plan_of(again).kept == plan.kept
    pruner = l0prune.wrap(again, X, target_sparsity=0.2, controller=FAST)
    train(pruner, adam(pruner), 20)
    assert plan_of(pruner.finalize()).shapes == model_shapes(Net())


def test_own_importances_say_what_stays() -> None:
    model = net()
    found = l0prune.inspect(model, X)
    scores = {group.name: torch.arange(group.units).float() for group in found.groups}
    plan = plan_of(prune(model, X, target_sparsity=0.4, importance=lambda m, groups: scores))
    for group in found.groups:
        kept = plan.kept[group.name]
        assert kept == tuple(range(group.units - len(kept), group.units))


def test_inputs_by_keyword_ignored_layers_and_a_forward_of_ones_own() -> None:
    by_name = [{"x": one} for one, _ in BATCHES]
    pruned = prune(net(), by_name[0], target_sparsity=0.3, importance="activation", batches=by_name, ignored="stem")
    assert pruned.stem.weight.shape == Net().stem.weight.shape
    own = prune(
        net(),
        BATCHES[0],
        target_sparsity=0.3,
        importance="activation",
        batches=BATCHES,
        repair=True,
        forward_fn=lambda model, inputs: model(inputs[0]),
        ignored="stem",
    )
    assert plan_of(own).kept == plan_of(pruned).kept


def test_under_inference_mode_the_result_can_still_be_trained() -> None:
    model = net()
    with torch.inference_mode():
        pruned = prune(model, X, target_sparsity=0.5)
    loss(pruned.train(), BATCHES[0]).backward()


@pytest.mark.parametrize(
    ("error", "words", "more"),
    [
        (ConfigError, "no such importance: magnitudes; did you mean 'magnitude'?", {"importance": "magnitudes"}),
        (ConfigError, "the importance needs batches: activation", {"importance": "activation"}),
        (ConfigError, "the importance needs a loss: fisher", {"importance": "fisher", "batches": BATCHES}),
        (ConfigError, "the repair needs batches", {"repair": True}),
        (ConfigError, "unknown metric", {"metric": "flops"}),
        (ConfigError, "give one target", {"target_speedup": 2.0}),
        (ConfigError, "gates.round_to out of range", {"round_to": 0}),
        (DataError, "there are no calibration batches", {"repair": True, "batches": []}),
        (DataError, "a calibration batch does not fit the model", {"repair": True, "batches": BATCHES}),
        (TargetError, "target sparsity out of range", {"target_sparsity": 1.5}),
        (TargetError, "more than can be removed", {"target_sparsity": 0.9999}),
        (GroupError, "nothing in the model can be pruned", {"ignored": ["stem", "inner", "outer"]}),
    ],
)
def test_bad_input(error: type[Exception], words: str, more: dict[str, Any]) -> None:
    with pytest.raises(error) as raised:
        prune(net(), X, **{"target_sparsity": 0.5, **more})
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_gated_model_is_refused_and_a_dense_one_has_no_plan() -> None:
    model = net()
    with pytest.raises(PlanError, match="the model carries no plan: Net"):
        plan_of(model)
    l0prune.wrap(model, X, target_sparsity=0.5)
    with pytest.raises(GroupError, match="model has gates already"):
        prune(model, X, target_sparsity=0.5)
