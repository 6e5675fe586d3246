"""The repair: what kept units can say is said, nothing gets worse, and nothing changes where nothing is missing."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from calibration_networks import Encoder, Grouped, images
from hypothesis import given, settings
from hypothesis import strategies as st
from small_training import Net
from torch import Tensor, nn

import l0prune
from l0prune import ConfigError, DataError, PlanError, RemovalPlan, apply_plan, repair
from l0prune.support.modules import model_shapes

X = images(size=32)[0]


def cut(build: Callable[[], nn.Module], kept: Callable[[int], list[int]]) -> tuple[nn.Module, nn.Module, RemovalPlan]:
    torch.manual_seed(0)
    dense = build().double().eval()
    groups = l0prune.inspect(dense, X[:4]).groups
    plan = RemovalPlan(groups=groups, kept={g.name: tuple(kept(g.units)) for g in groups}, shapes=model_shapes(dense))
    return dense, apply_plan(copy.deepcopy(dense), plan), plan


def at(model: nn.Module, path: str, batches: list[Tensor]) -> Tensor:
    """What a layer makes of the batches."""
    made: list[Tensor] = []
    handle = model.get_submodule(path).register_forward_hook(lambda _m, _x, y: made.append(y))
    with torch.no_grad():
        for batch in batches:
            model(batch)
    handle.remove()
    return torch.cat(made)


class Doubled(nn.Module):
    """Whatever `first` makes in its second half is a linear function of its first half."""

    def __init__(self, first: nn.Module, second: nn.Module, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.norm, self.second = first, norm or nn.Identity(), second
        self.transform = torch.tanh
        with torch.no_grad():
            half = len(first.weight) // 2
            first.weight[half:] = first.weight[:half].flip(0)
            first.bias[half:] = first.bias[:half].flip(0)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.transform(self.first(x)))


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: Doubled(nn.Linear(5, 8), nn.Linear(8, 3)), (40, 5)),
    "linear on sequences": (lambda: Doubled(nn.Linear(5, 8), nn.Linear(8, 3)), (10, 7, 5)),
    "without bias": (lambda: Doubled(nn.Linear(5, 8), nn.Linear(8, 3, bias=False)), (40, 5)),
    "conv1d": (lambda: Doubled(nn.Conv1d(2, 8, 3), nn.Conv1d(8, 3, 3, stride=2, padding=1)), (8, 2, 20)),
    "conv2d": (
        lambda: Doubled(nn.Conv2d(2, 8, 3), nn.Conv2d(8, 3, (3, 2), dilation=2, padding=1, padding_mode="reflect")),
        (6, 2, 9, 9),
    ),
    "conv2d without bias": (lambda: Doubled(nn.Conv2d(2, 8, 3), nn.Conv2d(8, 3, 3, bias=False)), (6, 2, 9, 9)),
    "conv3d": (lambda: Doubled(nn.Conv3d(1, 4, 2), nn.Conv3d(4, 3, 2)), (5, 1, 6, 6, 6)),
}


@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-5), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", LAYERS)
def test_what_kept_inputs_say_of_removed_ones_is_restored(name: str, dtype: torch.dtype, within: float) -> None:
    build, shape = LAYERS[name]
    torch.manual_seed(0)
    dense = build().to(dtype).eval()
    x = torch.randn(shape, dtype=dtype)
    (group,) = l0prune.inspect(dense, x[:2]).groups
    kept = {group.name: tuple(range(group.units // 2))}
    plan = RemovalPlan(groups=(group,), kept=kept, shapes=model_shapes(dense))
    pruned = apply_plan(copy.deepcopy(dense), plan)
    assert l0prune.relative_difference(dense(x), pruned(x)) > 0.05
    (one,) = repair(dense, pruned, plan, x.split(4))
    assert one.layer == "second"
    assert one.error_after < 1e-9 * one.error_before
    assert l0prune.relative_difference(dense(x), pruned(x)) < within
    exact = apply_plan(copy.deepcopy(dense), plan)
    repair(dense, exact, plan, x.split(4), ridge=1e-14)
    assert l0prune.relative_difference(dense(x), exact(x)) < (1e-9 if dtype == torch.float64 else within)


def test_grouped_convolutions_are_fitted_group_by_group() -> None:
    torch.manual_seed(0)
    dense = Doubled(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 6, 3, groups=2)).double().eval()
    x = torch.randn(6, 1, 9, 9, dtype=torch.float64)
    with torch.no_grad():  # Each group of two reads what the other half of its own inputs tells.
        dense.first.weight[2:4], dense.first.bias[2:4] = dense.first.weight[:2].clone(), dense.first.bias[:2].clone()
        dense.first.weight[6:8], dense.first.bias[6:8] = dense.first.weight[4:6].clone(), dense.first.bias[4:6].clone()
    (group,) = l0prune.inspect(dense, x).groups
    assert group.units == 4
    plan = RemovalPlan(groups=(group,), kept={group.name: (0, 1)}, shapes=model_shapes(dense))
    pruned = apply_plan(copy.deepcopy(dense), plan)
    repair(dense, pruned, plan, [x])
    assert l0prune.relative_difference(dense(x), pruned(x)) < 1e-5


@pytest.mark.parametrize("build", [Net, Grouped, Encoder])
def test_nothing_changes_where_nothing_is_removed(build: Callable[[], nn.Module]) -> None:
    dense, pruned, plan = cut(build, lambda units: list(range(units)))
    assert repair(dense, pruned, plan, X.split(8)) == ()
    assert all(
        torch.equal(a, b) for a, b in zip(dense.state_dict().values(), pruned.state_dict().values(), strict=True)
    )


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from([Net, Grouped, Encoder]),
    st.integers(0, 10_000),
    st.floats(0, 1),
    st.sampled_from([0, 1e-6, 0.1, 10]),
)
def test_no_layer_gets_farther_from_the_dense_one(
    build: Callable[[], nn.Module], seed: int, share: float, ridge: float
) -> None:
    random = np.random.default_rng(seed)
    some = lambda units: sorted(random.permutation(units)[: 1 + int(share * (units - 1))].tolist())  # noqa: E731
    dense, pruned, plan = cut(build, some)
    before, batches = copy.deepcopy(dense), list(images(seed, 16)[0].split(8))
    sizes = model_shapes(pruned)
    names = dict(pruned.named_parameters())
    for one in repair(dense, pruned, plan, batches, ridge=ridge):
        assert 0 <= one.error_after < one.error_before
    assert model_shapes(pruned) == sizes
    assert all(names[name] is parameter for name, parameter in pruned.named_parameters())
    assert all(
        torch.equal(a, b) for a, b in zip(dense.state_dict().values(), before.state_dict().values(), strict=True)
    )
    assert not any(m._forward_hooks for m in (*dense.modules(), *pruned.modules()))


def test_the_errors_are_those_of_the_layers_outputs() -> None:
    dense, pruned, plan = cut(Net, lambda units: list(range(units // 2)))
    batches = list(X.split(8))
    repaired = repair(dense, pruned, plan, batches)
    assert [one.layer for one in repaired] == ["inner", "outer", "head"]
    rows = plan.survivors()
    for one in repaired:
        stays = rows.get((f"{one.layer}.weight", 0))
        wanted = at(dense, one.layer, batches)
        wanted = wanted if stays is None else wanted[:, torch.from_numpy(stays)]
        left = (wanted - at(pruned, one.layer, batches)).movedim(1, -1).flatten(0, -2)
        assert float(left.square().sum(1).mean()) == pytest.approx(one.error_after, rel=1e-6)


def test_only_consumers_and_statistics_of_batch_norms_change() -> None:
    dense, pruned, plan = cut(Grouped, lambda units: list(range(1, units)))
    before = copy.deepcopy(pruned.state_dict())
    repair(dense, pruned, plan, X.split(8))
    changed = {name for name, tensor in pruned.state_dict().items() if not torch.equal(tensor, before[name])}
    consumers = {"b.weight", "c.weight", "c.bias", "head.weight", "head.bias"}
    assert changed == {*consumers, "norm.running_mean", "norm.running_var"}
    mean = at(pruned, "b", [X]).mean((0, 2, 3))
    torch.testing.assert_close(pruned.norm.running_mean, mean)


def test_modes_are_left_alone_and_frozen_weights_are_fitted_too() -> None:
    dense, pruned, plan = cut(Encoder, lambda units: list(range(units // 2)))
    dense.train()
    pruned.requires_grad_(False).train()
    assert {one.layer for one in repair(dense, pruned, plan, [X])} >= {
        f"layers.layers.{n}.{layer}" for n in (0, 1) for layer in ("self_attn.out_proj", "linear2")
    }
    assert dense.training
    assert all(module.training for module in pruned.modules())
    assert not any(p.requires_grad for p in pruned.parameters())
    assert type(dense.layers.layers[0].self_attn) is nn.MultiheadAttention


def test_tied_weights_stay() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.up = nn.Linear(64, 6), nn.Linear(6, 12)
            self.down, self.other = nn.Linear(12, 6), nn.Linear(12, 6)
            self.other.weight = self.down.weight

        def forward(self, x: Tensor) -> Tensor:
            x = self.up(self.enter(x.flatten(1)))
            return torch.cat([self.down(torch.tanh(x)), self.other(torch.relu(x))], 1)

    dense, pruned, plan = cut(Tied, lambda units: list(range(units // 2)))
    assert {one.layer for one in repair(dense, pruned, plan, [X])} == {"up"}
    assert pruned.other.weight is pruned.down.weight


@pytest.mark.parametrize(
    ("error", "words", "more"),
    [
        (ConfigError, "ridge out of range", {"ridge": -1.0}),
        (DataError, "there are no calibration batches", {"batches": []}),
        (DataError, "does not fit the model", {"batches": [X[:, :, :3]]}),
        (PlanError, "plan was made for another architecture", {"dense": nn.Linear(2, 2)}),
        (PlanError, "plan was made for another architecture", {"pruned": Net().double()}),
    ],
)
def test_bad_input(error: type[Exception], words: str, more: dict[str, Any]) -> None:
    dense, pruned, plan = cut(Grouped, lambda units: list(range(1, units)))
    arguments: dict[str, Any] = {"dense": dense, "pruned": pruned, "plan": plan, "batches": [X], **more}
    before = copy.deepcopy(pruned.state_dict())
    with pytest.raises(error, match=words):
        repair(**arguments)
    assert all(torch.equal(tensor, before[name]) for name, tensor in pruned.state_dict().items())
