"""Groups and plans: JSON round trips, fingerprints, and what is refused."""

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from l0prune import (
    Attribute,
    Bypass,
    GroupError,
    Norm,
    Place,
    PlanError,
    PruneGroup,
    RemovalPlan,
    Role,
    apply_plan,
    consecutive,
)
from l0prune.groups import check_groups
from l0prune.removal.plan import make_plan
from l0prune.support.modules import model_shapes

Make = Callable[..., tuple[nn.Module, list[PruneGroup]]]


@pytest.fixture
def plan(make_network: Make) -> RemovalPlan:
    network, groups = make_network()
    return make_plan(groups, {"first": (0, 2), "second": (1, 4, 5)}, model_shapes(network))


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 5), st.integers(0, 2**31), st.booleans())
def test_places_survive_json(units: int, width: int, offset: int, seed: int, scattered: bool) -> None:
    index = consecutive(units, width, offset)
    if scattered:
        index = np.random.default_rng(seed).permutation(index.ravel()).reshape(units, width)
    place = Place(tensor="t", dim=1, role=Role.CONSUMES, index=index)
    again = Place.from_json(json.loads(json.dumps(place.to_json())), units)
    assert (again.tensor, again.dim, again.role) == ("t", 1, Role.CONSUMES)
    assert np.array_equal(again.index, index)


def test_plans_survive_json_and_cut_alike(make_network: Make, plan: RemovalPlan) -> None:
    again = RemovalPlan.from_json(json.loads(json.dumps(plan.to_json())))
    assert again.to_json() == plan.to_json()
    first, second = apply_plan(make_network()[0], plan), apply_plan(make_network()[0], again)
    assert all(torch.equal(p, second.get_parameter(name)) for name, p in first.named_parameters())
    assert tuple(first.block.square.weight.shape) == (3, 2)
    assert (first.block.square.in_features, first.block.square.out_features) == (2, 3)
    assert first.norm.normalized_shape == (2,)


def test_another_architecture_is_refused_with_the_first_difference(make_network: Make, plan: RemovalPlan) -> None:
    network, _ = make_network()
    network.norm = nn.LayerNorm(7)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(PlanError, match=r"norm\.weight \(got \[7\], expected \[4\]\)"):
        apply_plan(network, plan)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    with pytest.raises(PlanError, match="no such tensor"):
        apply_plan(nn.Linear(2, 2), plan)


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"first": (), "second": (1,)}, "cannot be emptied"),
        ({"first": (0, 4), "second": (1,)}, "do not fit"),
        ({"first": (2, 0), "second": (1,)}, "do not fit"),
        ({"first": (0,)}, "do not fit"),
        ({"first": (0,), "second": (1,), "third": (0,)}, "third"),
    ],
)
def test_kept_units_must_fit(plan: RemovalPlan, kept: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        RemovalPlan(groups=plan.groups, kept=kept, shapes=plan.shapes)


@pytest.mark.parametrize("spoil", ["version", "groups", "kept", "shapes"])
def test_malformed_json_is_refused(plan: RemovalPlan, spoil: str) -> None:
    data = plan.to_json()
    for bad in ({**data, spoil: 7}, {key: value for key, value in data.items() if key != spoil}):
        with pytest.raises(PlanError, match=spoil):
            RemovalPlan.from_json(bad)
    with pytest.raises(PlanError, match="unknown plan version"):
        RemovalPlan.from_json([])  # type: ignore[arg-type]


def test_groups_around_one_block_are_emptied_together(make_network: Make) -> None:
    network, groups = make_network()
    weights = [name for name, _ in network.block.named_parameters()]
    places = [
        Place(tensor=f"block.{name}", dim=None, role=role, index=consecutive(1))
        for name in weights
        for role in [Role.CONSUMES if name.startswith("down") else Role.PRODUCES]
    ]
    block = PruneGroup(name="block", kind="block", units=1, places=tuple(places), bypass=groups[1].bypass)
    plan = make_plan([*groups, block], {"first": (0,), "second": (1, 2), "block": ()}, model_shapes(network))
    assert plan.kept == {"first": (0,), "second": (), "block": ()}
    assert plan.bypassed == {"block"}


def test_groups_must_fit_the_model(make_network: Make) -> None:
    network, groups = make_network()
    shapes = model_shapes(network)
    check_groups(groups, shapes)
    with pytest.raises(GroupError, match="one name"):
        check_groups([groups[0], groups[0]], shapes)
    with pytest.raises(GroupError, match="no such tensor"):
        check_groups(groups, {name: shape for name, shape in shapes.items() if name != "up.bias"})
    with pytest.raises(GroupError, match="outside"):
        check_groups(groups, {**shapes, "up.bias": (3,)})
    place = Place(tensor="up.weight", dim=0, role=Role.CONSUMES, index=consecutive(2))
    with pytest.raises(GroupError, match="two units"):
        check_groups([*groups, PruneGroup(name="x", kind="unit", units=2, places=(place,))], shapes)
    with pytest.raises(GroupError, match="no consumer"):
        PruneGroup(name="x", kind="unit", units=2, places=())
    with pytest.raises(GroupError, match="index map"):
        PruneGroup(name="x", kind="unit", units=3, places=(place,))


def paths_of(value: object, path: tuple = ()) -> list[tuple]:
    """Every place in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [inner for key, item in items for inner in paths_of(item, (*path, key))]


JUNK = (None, True, -1, 7, 2.5, "x", [], {}, [None], [[]], {"x": 1})


def plan_json() -> dict:
    """A plan with everything that can stand in one."""
    index = np.array([[0, 3], [1, 2]])
    group = PruneGroup(
        name="g",
        kind="unit",
        units=2,
        places=(
            Place(tensor="up.weight", dim=0, role=Role.PRODUCES, index=consecutive(2)),
            Place(tensor="block.square.weight", dim=1, role=Role.CONSUMES, index=index),
        ),
        norms=(Norm(module="norm"),),
        attributes=(Attribute(module="block", name="units"),),
        alive_with=("block.down.bias",),
        bypass=Bypass(module="block"),
    )
    return RemovalPlan(groups=(group,), kept={"g": (1,)}, shapes={"up.weight": (4, 5), "up.bias": (4,)}).to_json()


@pytest.mark.parametrize(
    "path", paths_of(json.loads(json.dumps(plan_json()))), ids=lambda path: ".".join(map(str, path))
)
def test_junk_anywhere_is_refused_or_reads_back_as_it_was_written(path: tuple) -> None:
    for junk in JUNK:
        data = json.loads(json.dumps(plan_json()))
        inner = data
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = junk
        try:
            plan = RemovalPlan.from_json(data)
        except PlanError:
            continue
        assert json.loads(json.dumps(plan.to_json())) == data, junk
