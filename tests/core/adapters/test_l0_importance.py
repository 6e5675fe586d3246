"""Keep probabilities in the hands of torch-pruning's own pruners."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch_pruning
from shared_networks import HEADS, Grouped, Residual, X, heads_of, settled, vision_transformer
from small_training import FAST
from torch import nn
from torch.nn import functional as F

from l0prune import ConfigError, GatedModel, GroupError, L0Pruner, PruneGroup, discover, relative_difference, wrap
from l0prune.adapters.torch_pruning import L0Importance, without_gates
from l0prune.removal import apply_plan, make_plan
from l0prune.support import model_shapes

pytestmark = [
    pytest.mark.filterwarnings("ignore:Unwrapped parameters detected:UserWarning"),
    pytest.mark.filterwarnings("ignore:the gates are at an expected sparsity:UserWarning"),
]


def groups_of(model: nn.Module) -> tuple[PruneGroup, ...]:
    return discover(model, lambda model: model(X)).groups


def random_scores(groups: tuple[PruneGroup, ...]) -> np.ndarray:
    return np.random.default_rng(0).permutation(sum(group.units for group in groups)) + 1.0


def pruner_of(model: nn.Module, importance: Any, **settings: Any) -> Any:
    """Only the classes' channels must stay."""
    made = {"kind": torch_pruning.pruner.BasePruner, "pruning_ratio": 0.5, "ignored_layers": [model.head], **settings}
    return made.pop("kind")(model, X, importance=importance, **made)


def kept_by_rank(groups: tuple[PruneGroup, ...], scores: np.ndarray, share: float) -> dict[str, tuple[int, ...]]:
    """The best units of each group."""
    parts = np.split(scores, np.cumsum([group.units for group in groups])[:-1])
    best = [np.sort(np.argsort(part)[len(part) - int(len(part) * share) :]) for part in parts]
    return {group.name: tuple(units.tolist()) for group, units in zip(groups, best, strict=True)}


def zeroed(model: nn.Module, groups: tuple[PruneGroup, ...], kept: dict[str, tuple[int, ...]]) -> nn.Module:
    """The dense model whose readers of removed units have weights of zero."""
    model = copy.deepcopy(model)
    everything = {group.name: tuple(range(group.units)) for group in groups}
    values = {group.name: torch.tensor([float(u in kept[group.name]) for u in range(group.units)]) for group in groups}
    return apply_plan(model, make_plan(groups, everything, model_shapes(model)), values)


@torch.no_grad()
def same(one: nn.Module, other: nn.Module) -> bool:
    return relative_difference(one(X), other(X)) < 1e-5


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("make", [Residual, Grouped])
def test_a_pruner_removes_the_units_that_rank_last(make: Callable[[], nn.Module], steps: int) -> None:
    """Channel by channel the same network as ours after the same choice, after several steps too."""
    model = settled(make)
    groups = groups_of(model)
    scores, dense = random_scores(groups), copy.deepcopy(model)
    pruner = pruner_of(model, L0Importance(scores, groups), iterative_steps=steps)
    for _ in range(steps):
        pruner.step()
    kept = kept_by_rank(groups, scores, 0.5)
    ours = apply_plan(copy.deepcopy(dense), make_plan(groups, kept, model_shapes(dense)))
    assert model_shapes(model) == model_shapes(ours)
    assert all(torch.equal(tensor, ours.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert same(model, ours)
    if make is Residual:
        assert same(model, zeroed(dense, groups, kept))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (torch_pruning.pruner.MetaPruner, {}),
        (torch_pruning.pruner.MetaPruner, {"round_to": 4}),
        (torch_pruning.pruner.MetaPruner, {"global_pruning": True}),
        (torch_pruning.pruner.GroupNormPruner, {}),
        (torch_pruning.pruner.GroupNormPruner, {"global_pruning": True, "isomorphic": True}),
        (torch_pruning.pruner.BNScalePruner, {"iterative_steps": 2}),
        (torch_pruning.pruner.GrowingRegPruner, {"pruning_ratio": 0.25}),
    ],
)
def test_pruners_meet_their_ratios(kind: type, settings: dict[str, Any]) -> None:
    model = settled(Residual)
    groups = groups_of(model)
    pruner = pruner_of(model, L0Importance(random_scores(groups), groups), kind=kind, **settings)
    for _ in range(settings.get("iterative_steps", 1)):
        pruner.step()
    widths = [model.stem.out_channels, model.first.out_channels, model.down.out_channels]  # type: ignore[union-attr]
    assert model(X).shape == (2, 5)
    left = 1 - settings.get("pruning_ratio", 0.5)
    if settings.get("global_pruning"):  # No two groups are alike, so that isomorphic ones are pruned alone.
        assert abs(sum(widths) - 72 * left) <= 1
        assert (widths != [16 * left, 24 * left, 32 * left]) == ("isomorphic" not in settings)
    else:
        assert widths == [16 * left, 24 * left, 32 * left]


@pytest.mark.parametrize(("steps", "ratio", "left"), [(1, 1 / HEADS, [(0, 2), (1, 2)]), (2, 0.5, [(0,), (2,)])])
def test_heads_and_widths_of_a_vision_transformer(steps: int, ratio: float, left: list[tuple[int, ...]]) -> None:
    """torch-pruning takes the ratio of heads from those that are left at each step."""
    model = settled(vision_transformer)
    groups = groups_of(model)
    named = {group.name: np.full(group.units, 0.5) for group in groups}
    named["blocks.0.attn.qkv"] = np.array([0.9, 0.1, 0.8])
    named["blocks.1.attn.qkv"] = np.array([0.1, 0.2, 0.3])
    named["blocks.0.mlp.fc1"][:48] = 0.1
    named["blocks.1.mlp.fc1"][1::2] = 0.1
    dense = copy.deepcopy(model)
    heads = heads_of(model)
    pruner = pruner_of(
        model,
        L0Importance(named, groups),
        ignored_layers=[model.head, model.patch_embed],
        num_heads=heads,
        prune_num_heads=True,
        prune_head_dims=False,
        head_pruning_ratio=ratio,
        iterative_steps=steps,
    )
    for _ in range(steps):
        pruner.step()
        for block in model.blocks:  # type: ignore[union-attr]
            block.attn.num_heads = heads[block.attn.qkv]
            block.attn.attn_dim = block.attn.num_heads * block.attn.head_dim
    assert list(heads.values()) == [len(left[0]), len(left[1])]
    everything = {group.name: tuple(range(group.units)) for group in groups}
    kept = everything | {
        "blocks.0.attn.qkv": left[0],
        "blocks.1.attn.qkv": left[1],
        "blocks.0.mlp.fc1": tuple(range(48, 96)),
        "blocks.1.mlp.fc1": tuple(range(0, 96, 2)),
    }
    assert same(model, zeroed(dense, groups, kept))
    assert model.state_dict().keys() == dense.state_dict().keys()
    ours = apply_plan(copy.deepcopy(dense), make_plan(groups, kept, model_shapes(dense)))
    assert model_shapes(model) == model_shapes(ours)


def learned(make: Callable[[], nn.Module] = Residual) -> L0Pruner:
    torch.manual_seed(0)
    model = settled(make)
    learner = wrap(model, X, target_sparsity=0.5, controller=FAST)
    optimizer = torch.optim.SGD(learner.parameter_groups(adaptive=False, lr=0.05))
    model.train()
    for _ in range(8):
        loss = F.cross_entropy(model(X), torch.tensor([0, 1])) + learner.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        learner.step()
    model.eval()
    return learner


def test_gates_are_folded_into_a_dense_copy() -> None:
    learner = learned()
    state = {name: tensor.clone() for name, tensor in learner.model.state_dict().items()}
    dense = without_gates(learner)
    assert model_shapes(dense) == model_shapes(Residual())
    assert same(dense, learner.model)
    assert same(without_gates(learner.gated), dense)
    assert all(torch.equal(tensor, state[name]) for name, tensor in learner.model.state_dict().items())


def test_what_was_learned_ranks_the_channels() -> None:
    learner = learned()
    importance, dense = L0Importance(learner), without_gates(learner)
    graph = torch_pruning.DependencyGraph().build_dependency(dense, X)
    probabilities = learner.gated.gates.keep_probabilities().detach().split([g.units for g in learner.gated.groups])
    known = dict(zip((group.name for group in learner.gated.groups), probabilities, strict=True))
    names = {"stem": "stem", "second": "stem", "first": "first", "down": "down"}
    found = {}
    for group in graph.get_all_groups(ignored_layers=[dense.head]):
        scores = importance(group)
        assert scores is not None
        found[names[graph._module2name[group[0].dep.target.module]]] = scores
    assert found.keys() == known.keys()
    for name, scores in found.items():
        torch.testing.assert_close(scores.float(), known[name].float())


def test_a_learned_choice_can_be_cut_by_torch_pruning() -> None:
    """Where its ratios are those that were learned, its network computes what the gated one does."""
    learner = learned()
    plan, dense = learner.plan, without_gates(learner)
    ratios = {
        dense.get_submodule(group.name): 1 - len(plan.kept[group.name]) / group.units - 1e-9 for group in plan.groups
    }
    assert 0 < sum(ratios.values()) < 3
    pruner_of(dense, L0Importance(learner), pruning_ratio_dict=ratios, pruning_ratio=0.0).step()
    assert model_shapes(dense) == plan.pruned_shapes()
    assert same(dense, learner.model)


@pytest.mark.parametrize(("unknown", "expected"), [(None, (16, 12)), (0.0, (8, 12))])
def test_channels_that_are_not_known(unknown: float | None, expected: tuple[int, int]) -> None:
    model = settled(Residual)
    groups = tuple(group for group in groups_of(model) if group.name != "stem")
    pruner_of(model, L0Importance(random_scores(groups), groups, unknown=unknown)).step()
    assert (model.stem.out_channels, model.first.out_channels) == expected  # type: ignore[union-attr]


def test_channels_that_are_known_in_part_come_last() -> None:
    model = settled(Residual)
    (group,) = (group for group in groups_of(model) if group.name == "first")
    half = PruneGroup(
        name="half",
        kind="conv",
        units=12,
        places=tuple(type(p)(tensor=p.tensor, dim=p.dim, role=p.role, index=p.index[::2]) for p in group.places),
    )
    dense = copy.deepcopy(model)
    pruner_of(model, L0Importance(np.arange(12.0), [half])).step()
    assert torch.equal(model.first.weight, dense.first.weight[1::2])  # type: ignore[union-attr,index]


def test_a_gated_model_and_names_serve_as_well() -> None:
    model = settled(Residual)
    groups = groups_of(model)
    gated = GatedModel(copy.deepcopy(model), groups, target_sparsity=0.5)
    probabilities = gated.gates.keep_probabilities().detach()
    parts = probabilities.split([group.units for group in groups])
    by_name = {group.name: part for group, part in zip(groups, parts, strict=True)}
    for importance in (L0Importance(gated), L0Importance(by_name, groups), L0Importance(probabilities, groups)):
        np.testing.assert_allclose(importance.scores, probabilities.numpy(), rtol=1e-5)


def test_parameters_outside_layers_are_followed_through_steps() -> None:
    """The residual width of a vision transformer stands on its class token and positions."""
    model = settled(vision_transformer)
    groups = groups_of(model)
    parts = {group.name: np.ones(group.units) for group in groups} | {"patch_embed.proj": np.arange(24.0)[::-1]}
    dense = copy.deepcopy(model)
    pruner = pruner_of(
        model, L0Importance(parts, groups), num_heads=heads_of(model), prune_head_dims=False, iterative_steps=3
    )
    for _ in range(3):
        pruner.step()
    assert torch.equal(model.pos_embed, dense.pos_embed[..., :12])  # type: ignore[arg-type,index]
    assert model(X).shape == (2, 5)


def test_channels_may_be_asked_for_one_by_one() -> None:
    model = settled(Grouped)
    groups = groups_of(model)
    scores = dict(zip((group.name for group in groups), np.split(random_scores(groups), [4, 8, 12]), strict=True))
    graph = torch_pruning.DependencyGraph().build_dependency(model, X)
    group = graph.get_pruning_group(model.d, torch_pruning.prune_conv_out_channels, [2, 6, 9])
    found = L0Importance(scores, groups)(group)
    assert found is not None
    assert found.tolist() == scores["d"][[2, 6, 9]].tolist()


def test_importances_that_do_not_fit() -> None:
    model = settled(Residual)
    groups = groups_of(model)
    with pytest.raises(ConfigError, match=r"importances come without groups; L0Importance\(importances, groups\)"):
        L0Importance(np.ones(3))
    with pytest.raises(ConfigError, match=r"L0Importance gives the wrong number of importances.*\(72,\)"):
        L0Importance(np.ones(3), groups)
    with pytest.raises(ConfigError, match="not finite: stem"):
        L0Importance(np.full(72, np.nan), groups)


def test_another_model_than_the_one_that_was_learned() -> None:
    model = settled(Residual)
    importance = L0Importance(random_scores(groups_of(model)), groups_of(model))
    small = settled(Residual)
    pruner_of(small, torch_pruning.importance.GroupMagnitudeImportance()).step()
    with pytest.raises(GroupError, match=r"a layer has another width than what was learned: .*weight"):
        pruner_of(small, importance).step()


def test_a_model_that_was_pruned_past_its_importance() -> None:
    model = settled(Residual)
    groups = groups_of(model)
    importance = L0Importance(random_scores(groups), groups)
    pruner = pruner_of(model, torch_pruning.importance.GroupMagnitudeImportance(), iterative_steps=2)
    pruner.step()
    pruner.importance = importance
    with pytest.raises(GroupError, match=r"pruned before.*pruner of the dense model"):
        pruner.step()
    model = settled(Residual)
    pruner = pruner_of(model, importance, iterative_steps=2)
    pruner.step()
    torch_pruning.prune_conv_out_channels(model.stem, [0])
    with pytest.raises(GroupError, match=r"another width.*changed by the pruner alone"):
        pruner.step()
