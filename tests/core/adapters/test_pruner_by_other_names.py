"""Pruning under torch-pruning's names: the same networks as under ours, in place."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch_pruning
from shared_networks import HEADS, Grouped, Residual, Tied, X, heads_of, settled, vision_transformer
from torch import nn
from torch.nn import functional as F

from l0prune import (
    ConfigError,
    GroupError,
    TargetError,
    discover,
    importances,
    inspect,
    plan_of,
    prune,
    relative_difference,
)
from l0prune.adapters.torch_pruning import L0Importance, Pruner
from l0prune.support import model_shapes

Y = torch.tensor([0, 1])


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@torch.no_grad()
def same(one: nn.Module, other: nn.Module) -> bool:
    return relative_difference(one(X), other(X)) < 1e-5


@pytest.mark.parametrize("make", [Residual, Grouped, Tied, vision_transformer])
def test_a_step_prunes_in_place_as_prune_does(make: Callable[[], nn.Module]) -> None:
    model = settled(make).train()
    modules, dense = dict(model.named_modules()), copy.deepcopy(model)
    expected = prune(dense, X, target_sparsity=0.3)
    Pruner(model, X, importance="magnitude", pruning_ratio=0.3, ignored_layers=[model.head]).step()  # type: ignore[list-item]
    assert model_shapes(model) == model_shapes(expected)
    assert 0.65 * parameters(dense) < parameters(model) == parameters(expected) <= 0.7 * parameters(dense)
    assert all(module.training for module in model.modules())
    assert {name: id(module) for name, module in model.named_modules()} == {n: id(m) for n, m in modules.items()}
    assert same(model.eval(), expected)
    assert plan_of(model).kept == plan_of(expected).kept
    F.cross_entropy(model(X), Y).backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())


@pytest.mark.parametrize("metric", ["params", "macs"])
def test_several_steps_end_at_the_size_of_one(metric: str) -> None:
    model = settled(Residual)
    dense, sizes = copy.deepcopy(model), []
    pruner = Pruner(model, X, "magnitude", pruning_ratio=0.5, iterative_steps=3, metric=metric)
    for _ in range(3):
        pruner.step()
        found = inspect(model, X)
        size = found.parameter_model if metric == "params" else found.mac_model
        assert size is not None
        sizes.append(size.total)
    found = inspect(dense, X)
    total = (found.parameter_model if metric == "params" else found.mac_model).total  # type: ignore[union-attr]
    for size, left in zip(sizes, (5 / 6, 4 / 6, 1 / 2), strict=True):
        assert left * total * 0.88 < size <= left * total
    with pytest.warns(UserWarning, match="all iterative steps are done"):
        pruner.step()
    assert set(plan_of(model).kept) == {"stem", "first", "down"}


def test_a_scheduler_gives_the_ratios() -> None:
    model = settled(Residual)
    pruner = Pruner(
        model,
        X,
        "magnitude",
        pruning_ratio=0.5,
        iterative_steps=2,
        iterative_pruning_ratio_scheduler=lambda ratio, steps: [0.0, 0.0, ratio],
    )
    before = parameters(model)
    pruner.step()
    assert parameters(model) == before
    pruner.step()
    expected = prune(settled(Residual), X, target_sparsity=0.5)
    assert parameters(model) == parameters(expected) <= 0.5 * before
    # None is torch-pruning's own, which is linear.
    other = Pruner(model, X, "magnitude", iterative_steps=2, iterative_pruning_ratio_scheduler=None)
    assert other.iterative_steps == 2


def test_ignored_layers_keep_their_outputs_and_round_to_holds() -> None:
    model = settled(Residual)
    Pruner(model, X, "magnitude", pruning_ratio=0.5, ignored_layers=[model.second, "head"], round_to=4).step()
    assert (model.stem.out_channels, model.second.out_channels) == (16, 16)  # type: ignore[union-attr]
    assert model.head.in_features < 32  # type: ignore[union-attr]
    assert model.first.out_channels % 4 == model.down.out_channels % 4 == 0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "importance",
    [torch_pruning.importance.GroupMagnitudeImportance(), torch_pruning.importance.GroupTaylorImportance()],
)
@pytest.mark.parametrize("make", [Residual, Grouped, vision_transformer])
def test_importances_of_torch_pruning_rank_our_units(make: Callable[[], nn.Module], importance: Any) -> None:
    model = settled(make)
    dense = copy.deepcopy(model)
    F.cross_entropy(model(X), Y).backward()
    Pruner(model, X, importance, pruning_ratio=0.4, num_heads=heads_of(model)).step()
    assert 0.55 * parameters(dense) < parameters(model) <= 0.6 * parameters(dense)
    assert model(X).shape == (2, 5)


def test_they_rank_units_as_they_rank_channels() -> None:
    """What ranks last in torch-pruning's own pruner is what leaves here, in a network of one group."""
    make = lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 3))  # noqa: E731
    one, other = settled(make), settled(make)
    importance = torch_pruning.importance.GroupMagnitudeImportance()
    torch_pruning.pruner.BasePruner(one, X, importance, pruning_ratio=0.5, ignored_layers=[one[2]]).step()  # type: ignore[index]
    ratio = 1 - parameters(one) / parameters(other)
    Pruner(other, X, importance, pruning_ratio=ratio, ignored_layers=[other[2]]).step()  # type: ignore[index]
    assert same(one, other)
    assert other[0].out_channels == 8  # type: ignore[index]


def test_our_importance_in_torch_prunings_form_comes_back_as_it_was() -> None:
    model = settled(Residual)
    groups = discover(model, lambda model: model(X)).groups
    scores = importances(model, groups, "random")
    expected = prune(model, X, target_sparsity=0.5, importance=lambda *_: scores)
    Pruner(model, X, L0Importance(scores, groups), pruning_ratio=0.5).step()
    assert plan_of(model).kept == plan_of(expected).kept


def test_gates_are_learned_where_there_is_no_importance() -> None:
    model = settled(Residual).train()
    dense = parameters(model)
    pruner = Pruner(model, X, pruning_ratio=0.5, total_steps=20, ignored_layers=[model.head])  # type: ignore[list-item]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(X), Y)
        loss.backward()
        pruner.regularize(model)
        optimizer.step()
        losses.append(loss.item())
    assert pruner.learner is not None
    assert pruner.learner.settled
    with torch.no_grad():
        expected = model.eval()(X)
    pruner.step()
    assert type(model) is Residual
    assert type(model.first) is nn.Conv2d
    assert 0.48 * dense < parameters(model) <= 0.5 * dense
    assert relative_difference(model(X).detach(), expected) < 1e-5
    assert losses[-1] < losses[0]
    assert not [name for name in model.state_dict() if "l0prune" in name or "parametrizations" in name]
    pruner.regularize(model)  # As torch-pruning's loops go on calling it.


def test_heads_are_counted_on() -> None:
    """What scripts for torch-pruning do after a step holds here."""
    model = settled(vision_transformer)
    heads = heads_of(model)
    scores = {"blocks.0.attn.qkv": [0.0, 2, 2], "blocks.1.attn.qkv": [2.0, 0, 0]}
    rank: Any = lambda _, groups: {g.name: scores.get(g.name, [1.0] * g.units) for g in groups}  # noqa: E731
    Pruner(model, X, rank, pruning_ratio=0.1, num_heads=heads).step()
    first, second = (block.attn for block in model.blocks)  # type: ignore[union-attr]
    assert list(heads.values()) == [2, 1] == [first.num_heads, second.num_heads]
    for module in (first, second):
        assert module.head_dim == module.qkv.out_features // (3 * heads[module.qkv])


def test_heads_that_the_forward_pass_does_not_show_can_be_told() -> None:
    model = nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Conv2d(12, 5, 3))
    heads: dict[nn.Module, int] = {model[0]: HEADS}
    Pruner(model, X, "magnitude", pruning_ratio=0.3, num_heads=heads).step()
    assert model[0].out_channels == 8  # type: ignore[comparison-overlap]
    assert heads == {model[0]: 2}


class Factor(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.rand(channels, 1, 1) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


class FactorPruner(torch_pruning.BasePruningFunc):
    def prune_out_channels(self, layer: Any, idxs: Any) -> nn.Module:
        kept = [i for i in range(len(layer.factor)) if i not in idxs]
        layer.factor = self._prune_parameter_and_grad(layer.factor, kept, 0)
        return layer

    prune_in_channels = prune_out_channels

    def get_out_channels(self, layer: Any) -> int:
        return len(layer.factor)

    get_in_channels = get_out_channels


class Shifted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 12, 3), nn.Conv2d(12, 10, 1)
        self.factor, self.shift, self.head = Factor(12), nn.Parameter(torch.randn(10, 14, 1)), nn.Linear(10, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(F.relu(self.b(self.factor(self.a(x))) + self.shift).mean((2, 3)))


@pytest.mark.parametrize("form", [dict, list])
def test_customised_pruners_and_unwrapped_parameters(form: type) -> None:
    model = settled(Shifted)
    dense = copy.deepcopy(model)
    unwrapped = form({model.shift: 0}.items())
    pruner = Pruner(
        model,
        X,
        torch_pruning.importance.GroupMagnitudeImportance(),
        pruning_ratio=0.5,
        iterative_steps=2,
        customized_pruners={Factor: FactorPruner()},
        unwrapped_parameters=unwrapped,
    )
    for _ in range(2):
        pruner.step()
    assert 0.4 * parameters(dense) < parameters(model) <= 0.5 * parameters(dense)
    assert len(model.shift) == model.b.out_channels < 10  # type: ignore[arg-type,operator]
    assert model(X).shape == (2, 5)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"global_pruning": False}, ConfigError, "no counterpart: global_pruning.*got False.*all units compete"),
        ({"pruning_ratio_dict": {"a": 0.5}}, ConfigError, "no counterpart: pruning_ratio_dict.*ignored_layers keeps"),
        ({"max_pruning_ratio": 0.8}, ConfigError, "no counterpart: max_pruning_ratio.*got 0.8"),
        ({"prune_num_heads": False}, ConfigError, "no counterpart: prune_num_heads.*heads leave whole"),
        ({"head_pruning_ratio": 0.5}, ConfigError, "no counterpart: head_pruning_ratio.*one budget: pruning_ratio"),
        ({"isomorphic": True}, ConfigError, "no counterpart: isomorphic"),
        ({"ch_sparsity": 0.5}, ConfigError, "no counterpart: ch_sparsity.*it is called pruning_ratio"),
        ({"in_channel_groups": {nn.ReLU(): 2}}, ConfigError, "no counterpart: in_channel_groups.*found by following"),
        ({"pruning_ration": 0.5}, ConfigError, "no such argument: pruning_ration; did you mean 'pruning_ratio'"),
        ({"pruning_ration": 0.5, "importance": None}, ConfigError, "no such argument: pruning_ration"),
        ({"pruning_ratio": "0.5"}, TargetError, "pruning_ratio out of range.*got '0.5'"),
        ({"iterative_pruning_ratio_scheduler": lambda *_: [0.5]}, ConfigError, "got 1 ratios, expected 2: one before"),
        ({"iterative_steps": 0}, ConfigError, "iterative_steps out of range.*got 0"),
        ({"iterative_steps": 2, "importance": None}, ConfigError, "gates are cut once: iterative_steps.*total_steps"),
        ({"ignored_layers": [nn.ReLU()]}, GroupError, "no such module in the model: ReLU"),
        ({"unwrapped_parameters": {nn.Parameter(torch.ones(2)): 0}}, GroupError, "no such parameter in the model"),
        ({"pruning_ratio": 1.5, "importance": None}, TargetError, "out of range"),
    ],
)
def test_arguments_that_cannot_be_used(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    model = settled(Residual)
    names = list(model.state_dict())
    with pytest.raises(error, match=message):
        Pruner(model, X, **{"importance": "magnitude", **settings})
    assert list(model.state_dict()) == names


@pytest.mark.parametrize(
    "settings",
    [
        {"global_pruning": True, "isomorphic": False, "max_pruning_ratio": 1.0, "pruning_ratio_dict": None},
        {"prune_num_heads": True, "prune_head_dims": False, "head_pruning_ratio_dict": {}, "channel_groups": {}},
    ],
)
def test_arguments_that_say_what_is_done_anyway(settings: dict[str, Any]) -> None:
    model = settled(Residual)
    before = parameters(model)
    Pruner(model, X, "magnitude", **settings).step()
    assert parameters(model) <= 0.5 * before


class Nothing(torch_pruning.importance.Importance):
    def __call__(self, group: Any) -> None:
        return None


@pytest.mark.parametrize(
    ("settings", "steps", "error", "message"),
    [
        ({}, {"interactive": True}, ConfigError, "no counterpart: interactive"),
        ({"pruning_ratio": 0.999}, {}, TargetError, "more than can be removed"),
        ({"importance": "magnitood"}, {}, ConfigError, "no such importance: magnitood; did you mean 'magnitude'"),
        ({"importance": "taylor"}, {}, ConfigError, "needs batches"),
        ({"ignored_layers": [""]}, {}, GroupError, "ignored_layers leaves nothing to prune: Residual"),
        (
            {"importance": Nothing()},
            {},
            GroupError,
            "does not know these units: stem; leave them to ignored_layers",
        ),
    ],
)
def test_steps_that_cannot_be_made(
    settings: dict[str, Any], steps: dict[str, Any], error: type[Exception], message: str
) -> None:
    model = settled(Residual)
    state = copy.deepcopy(model.state_dict())
    pruner = Pruner(model, X, **{"importance": "magnitude", **settings})
    with pytest.raises(error, match=message):
        pruner.step(**steps)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


class Log:
    """A hook that is an object of the caller's."""

    def __init__(self) -> None:
        self.shapes: list[torch.Size] = []

    def __call__(self, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        self.shapes.append(output.shape)


@pytest.mark.parametrize("importance", ["magnitude", None])
def test_what_the_caller_holds_stays(importance: str | None) -> None:
    """Modules, hooks and other objects of a model, with torch's own attention and norms in it."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(24, 3, 36, batch_first=True, dropout=0.0)
    model = nn.Sequential(nn.Conv2d(3, 24, 4, stride=4), nn.Flatten(2), nn.Linear(16, 24), layer, nn.Linear(24, 5))
    model.config, log = {"width": 24}, Log()
    layer.linear1.register_forward_hook(log)
    config, modules, before = model.config, dict(model.named_modules()), parameters(model)
    pruner = Pruner(model, X, importance, pruning_ratio=0.4)
    for _ in range(3 if importance is None else 0):
        model(X).square().mean().backward()
        pruner.regularize(model)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the gates are at an expected sparsity")
        pruner.step()
    log.shapes.clear()
    assert model.eval()(X).shape == (2, 24, 5)
    assert log.shapes == [(2, 24, layer.linear1.out_features)]
    assert model.config is config
    assert {name: id(module) for name, module in model.named_modules()} == {n: id(m) for n, m in modules.items()}
    assert parameters(model) <= 0.6 * before
    twin = copy.deepcopy(model)
    twin.load_state_dict(model.state_dict())
    assert same(twin, model)
