"""wrap() and what it gives: the target met, a plain smaller model, plans that compose, other names for the same."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_training import FAST, Net, adam, batch, count, make, train
from torch import nn

import l0prune
from l0prune import GroupError, L0Pruner, Place, PlanError, PruneGroup, Role, consecutive, wrap
from l0prune.support import pre_hooks
from l0prune.support.modules import model_shapes

# Most of these runs are too short to reach their target.
pytestmark = pytest.mark.filterwarnings("ignore:the gates are at an expected sparsity:UserWarning")


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


_WITHOUT_L0PRUNE = """
import sys
sys.modules["l0prune"] = None  # An import of it fails.
import torch
model = torch.load(sys.argv[1], weights_only=False)
torch.save(model(torch.ones(2, 6)), sys.argv[2])
"""


def test_what_is_saved_opens_without_this_library(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    example = torch.ones(2, 6)
    pruner = L0Pruner(model, example, target_sparsity=0.5, controller=FAST)
    for _ in range(3):
        (model(example).square().mean() + pruner.penalty()).backward()
        pruner.step()
    for pruned in (pruner.finalize(), l0prune.prune(pruner.finalize(), example, target_sparsity=0.2)):
        torch.save(pruned, tmp_path / "model.pt")
        command = [sys.executable, "-P", "-c", _WITHOUT_L0PRUNE, tmp_path / "model.pt", tmp_path / "outputs.pt"]
        subprocess.run(command, check=True, cwd=tmp_path)
        assert torch.equal(torch.load(tmp_path / "outputs.pt"), pruned(example))


def test_the_pruned_model_is_a_plain_module_and_the_gated_one_stays_as_it_was() -> None:
    pruner = make(0.6)
    train(pruner, adam(pruner), 3)
    before = {name: tensor.clone() for name, tensor in pruner.model.state_dict().items()}
    pruned, dense = pruner.finalize(), Net()
    assert list(pruned.state_dict()) == list(dense.state_dict())
    assert [type(module) for module in pruned.modules()] == [type(module) for module in dense.modules()]
    assert not any(pre_hooks(module) for module in pruned.modules())
    assert vars(pruned).keys() - vars(dense).keys() == {"_l0prune_plan"}
    after = pruner.model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert pruner.report.steps == 3
    train(pruner, adam(pruner), 1)
    pruner.finalize()
    assert pruner.report.steps == 4


def test_a_frozen_weight_stays_out_of_the_groups() -> None:
    pruner = make()
    pruner.model.head.bias.requires_grad_(False)
    assert all(p is not pruner.model.head.bias for group in pruner.parameter_groups() for p in group["params"])


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


def test_what_to_ignore_widths_and_a_forward_of_ones_own() -> None:
    model = Net()
    pruner = L0Pruner(model, batch()[0], target_sparsity=0.4, ignored=[model.stem], round_to=2, controller=FAST)
    assert [group.name for group in pruner.inspection.groups] == ["inner"]
    train(pruner, adam(pruner), 6)
    assert pruner.sparsity.target == 0.4
    seen = []
    L0Pruner(
        Net(),
        {"picture": batch()[0]},
        target_sparsity=0.4,
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
