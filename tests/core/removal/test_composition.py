"""Plans one after the other: `first.then(second)` cuts the dense network as both in turn cut it."""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from l0prune import Place, PlanError, PruneGroup, RemovalPlan, Role, apply_plan, consecutive
from l0prune.discovery.search import discover
from l0prune.removal.plan import make_plan
from l0prune.support.modules import model_shapes

Make = Callable[..., tuple[nn.Module, list[PruneGroup]]]


class Convolutions(nn.Module):
    """Concatenated, grouped and flattened channels."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.norm = nn.Conv2d(3, 5, 1), nn.Conv2d(3, 7, 1), nn.BatchNorm2d(12)
        self.three, self.four = nn.Conv2d(12, 8, 1), nn.Conv2d(8, 8, 3, groups=2)
        self.five, self.six = nn.Linear(32, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(torch.cat([self.one(x), self.two(x)], 1)))
        return self.six(torch.relu(self.five(self.four(self.three(x)).flatten(1))))


class Attention(nn.Module):
    """A residual stream with fused heads and a gated linear unit."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 4
        self.enter, self.norm, self.leave = nn.Linear(3, 8), nn.LayerNorm(8), nn.Linear(8, 2)
        self.qkv, self.proj, self.up, self.down = nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 12), nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        q, k, v = self.qkv(self.norm(x)).reshape(*x.shape[:2], 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return self.leave(x + self.down(F.glu(self.up(x))))


class Recurrent(nn.Module):
    """An LSTM over embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.leave = nn.Linear(3, 5), nn.Linear(14, 2)
        self.lstm = nn.LSTM(5, 7, 2, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.lstm(self.embed(x))[0])


INPUTS = {Convolutions: (2, 3, 4, 4), Attention: (2, 5, 3), Recurrent: (2, 5, 3)}
KINDS = st.sampled_from(list(INPUTS))


@cache
def dense(kind: type[nn.Module]) -> tuple[nn.Module, tuple[PruneGroup, ...]]:
    torch.manual_seed(0)
    model = kind().eval()
    return model, groups_of(model)


def groups_of(model: nn.Module) -> tuple[PruneGroup, ...]:
    shape = next(shape for kind, shape in INPUTS.items() if isinstance(model, kind))
    return discover(model, lambda model: model(torch.ones(shape))).groups


def draw_plan(model: nn.Module, groups: Sequence[PruneGroup], random: np.random.Generator, least: int) -> RemovalPlan:
    """Any share of each of some of the groups, `least` units at least."""
    some = [group for group in groups if random.random() < 0.7] or list(groups[:1])
    kept = {}
    for group in some:
        count = random.integers(min(least, group.units), group.units + 1)
        kept[group.name] = tuple(sorted(random.permutation(group.units)[:count].tolist()))
    return make_plan(some, kept, model_shapes(model))


def resized(groups: Sequence[PruneGroup], plan: RemovalPlan) -> list[PruneGroup]:
    """Groups, cut or not, in the indices of the network that it leaves."""
    survivors, left = plan.survivors(), plan.pruned_shapes()
    found = []
    for group in groups:
        kept, places = list(plan.kept.get(group.name, range(group.units))), []
        for place in group.places:
            if place.tensor in left and kept:
                index = place.index[kept]
                stays = survivors.get((place.tensor, place.dim)) if place.dim is not None else None
                index = index if stays is None else np.searchsorted(stays, index)
                places.append(replace(place, index=index))
        if any(place.role is Role.CONSUMES for place in places):
            switches = tuple(name for name in group.alive_with if name in left)
            found.append(replace(group, units=len(kept), places=tuple(places), alive_with=switches))
    return found


def draw_plans(
    kind: type[nn.Module], seed: int, steps: int, *, anew: bool = False
) -> tuple[list[RemovalPlan], nn.Module]:
    """Plans for the dense model, for what the first leaves, and so on; and what they all leave.

    Args:
        kind: The network.
        seed: Of what they keep.
        steps: How many plans.
        anew: Discover the groups of each smaller network, rather than count them over.
    """
    (model, groups), plans, random = dense(kind), [], np.random.default_rng(seed)
    model = copy.deepcopy(model)
    for step in range(steps):
        # Discovery leaves alone what has no company.
        plans.append(draw_plan(model, groups, random, 2 if anew and step < steps - 1 else 1))
        model = apply_plan(model, plans[-1])
        groups = groups_of(model) if anew and step < steps - 1 else resized(groups, plans[-1])
    return plans, model


def assert_same(one: nn.Module, other: nn.Module) -> None:
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@settings(max_examples=40)
@given(KINDS, st.integers(0, 2**31), st.booleans())
def test_the_joint_plan_cuts_as_both_do_in_turn(kind: type[nn.Module], seed: int, anew: bool) -> None:
    (first, second), both = draw_plans(kind, seed, 2, anew=anew)
    joint = first.then(second)
    pruned = apply_plan(copy.deepcopy(dense(kind)[0]), joint)
    assert_same(pruned, both)
    assert joint.pruned_shapes() == second.pruned_shapes() == model_shapes(both)
    assert joint.shapes == first.shapes
    x = torch.randn(INPUTS[kind], generator=torch.Generator().manual_seed(seed))
    assert torch.equal(pruned(x), both(x))
    again = RemovalPlan.from_json(json.loads(json.dumps(joint.to_json())))
    assert again.to_json() == joint.to_json()
    assert_same(apply_plan(copy.deepcopy(dense(kind)[0]), again), both)


@settings(max_examples=30)
@given(KINDS, st.integers(0, 2**31))
def test_joining_is_associative(kind: type[nn.Module], seed: int) -> None:
    (first, second, third), all_three = draw_plans(kind, seed, 3)
    left, right = first.then(second).then(third), first.then(second.then(third))
    for joint in (left, right):
        assert_same(apply_plan(copy.deepcopy(dense(kind)[0]), joint), all_three)
    assert left.kept == right.kept
    assert left.pruned_shapes() == right.pruned_shapes()


@settings(max_examples=10)
@given(KINDS, st.integers(0, 2**31))
def test_a_plan_that_keeps_everything_changes_nothing(kind: type[nn.Module], seed: int) -> None:
    (plan,), pruned = draw_plans(kind, seed, 1)
    model, groups = dense(kind)
    before = make_plan(groups, {g.name: tuple(range(g.units)) for g in groups}, model_shapes(model))
    after = make_plan((), {}, model_shapes(pruned))
    for joint in (
        before.then(plan),
        plan.then(after),
        RemovalPlan(groups=(), kept={}, shapes=before.shapes).then(plan),
    ):
        assert_same(apply_plan(copy.deepcopy(model), joint), pruned)
    assert plan.then(after).to_json() == plan.to_json()
    plan.check_next(plan.remaining_groups())


def plan_for(model: nn.Module, kept: Mapping[str, Sequence[int]], *groups: PruneGroup) -> RemovalPlan:
    chosen = [group for group in groups or groups_of(model) if group.name in kept]
    return make_plan(chosen, {name: tuple(units) for name, units in kept.items()}, model_shapes(model))


def model_and(kept: Mapping[str, Sequence[int]]) -> tuple[RemovalPlan, nn.Module]:
    """A plan for `Attention`, and what it leaves."""
    model = copy.deepcopy(dense(Attention)[0])
    plan = plan_for(model, kept)
    return plan, apply_plan(model, plan)


def test_groups_of_both_stand_beside_each_other_under_names_of_their_own() -> None:
    first, pruned = model_and({"qkv": (0, 3)})
    group = next(group for group in groups_of(pruned) if group.name == "up")
    second = plan_for(pruned, {"qkv": (1, 2)}, replace(group, name="qkv"))
    joint = first.then(second)
    assert joint.kept == {"qkv": (0, 3), "qkv#2": (1, 2)}
    assert [group.kind for group in joint.groups] == ["head", "unit"]
    assert_same(apply_plan(copy.deepcopy(dense(Attention)[0]), joint), apply_plan(pruned, second))


def joined_units(group: PruneGroup, *, by: int) -> PruneGroup:
    """The group in units of several."""
    places = [replace(place, index=place.index.reshape(group.units // by, -1)) for place in group.places]
    return replace(group, units=group.units // by, places=tuple(places), attributes=())


def test_the_second_may_cut_in_coarser_units() -> None:
    first, pruned = model_and({"up": (0, 1, 3, 5), "qkv": (1, 2)})
    group = next(group for group in groups_of(pruned) if group.name == "up")
    second = plan_for(pruned, {"up": (1,)}, joined_units(group, by=2))
    joint = first.then(second)
    assert joint.kept == {"qkv": (1, 2), "up": (3, 5)}
    assert_same(apply_plan(copy.deepcopy(dense(Attention)[0]), joint), apply_plan(pruned, second))


def test_the_second_may_not_cut_through_units_of_the_first() -> None:
    model = dense(Attention)[0]
    heads = next(group for group in dense(Attention)[1] if group.name == "qkv")
    pair = joined_units(heads, by=2)
    first = plan_for(model, {"qkv": (0, 1)}, pair)
    pruned = apply_plan(copy.deepcopy(model), first)
    second = plan_for(pruned, {"qkv": (0, 1, 3)})
    with pytest.raises(PlanError, match="cuts through units of the first: qkv, qkv"):
        first.then(second)
    with pytest.raises(PlanError, match=r"cuts through units of the first: qkv, qkv; .*remaining_groups"):
        first.check_next(second.groups)
    first.check_next(first.remaining_groups())
    # Whole pairs are no cut through one.
    assert first.then(plan_for(pruned, {"qkv": (2, 3)})).kept == {"qkv": (1,)}


def test_groups_that_overlap_in_part_cannot_be_joined() -> None:
    first, pruned = model_and({"up": (0, 1, 2, 3)})
    group = next(group for group in groups_of(pruned) if group.name == "up")
    stray = Place(tensor="leave.bias", dim=0, role=Role.PRODUCES, index=consecutive(2))
    half = joined_units(group, by=2)
    second = plan_for(pruned, {"up": (0,)}, replace(half, places=(*half.places, stray)))
    for join in (lambda: first.then(second), lambda: first.check_next(second.groups)):
        with pytest.raises(PlanError, match=r"overlap in part: up, leave\.bias"):
            join()


def test_a_plan_for_another_network_is_refused_with_the_first_difference() -> None:
    first, pruned = model_and({"up": (0, 1, 2)})
    message = r"another architecture: up\.weight \(got \[6, 8\], expected \[12, 8\]\)"
    with pytest.raises(PlanError, match=message):
        first.then(first)
    other = {**model_shapes(pruned), "more": (1,)}
    with pytest.raises(PlanError, match=r"more \(got no such tensor, expected \[1\]\)"):
        first.then(RemovalPlan(groups=(), kept={}, shapes=other))


# The network is made anew for each example.
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.sets(st.integers(0, 3), min_size=1), st.sets(st.integers(0, 5)), st.integers(0, 2**31))
def test_blocks_may_be_emptied_first_or_second_or_not_at_all(
    make_network: Make, one: set[int], two: set[int], seed: int
) -> None:
    network, groups = make_network()
    kept = {"first": tuple(sorted(one)), "second": tuple(sorted(two))}
    first = make_plan(groups, kept, model_shapes(network))
    pruned, random = apply_plan(network, first), np.random.default_rng(seed)
    smaller, rest = resized(groups, first), {}
    for group in smaller:
        count = random.integers(group.least_units, group.units + 1)
        rest[group.name] = tuple(sorted(random.permutation(group.units)[:count].tolist()))
    second = make_plan(smaller, rest, model_shapes(pruned))
    joint = first.then(second)
    assert_same(apply_plan(make_network()[0], joint), apply_plan(pruned, second))
    assert joint.pruned_shapes() == second.pruned_shapes()
