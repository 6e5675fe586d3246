"""Selection: within the budget, from below, as closely as one unit allows, best units first."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from l0prune import Bypass, GateConfig, GatedModel, Place, PruneGroup, Role, TargetError, consecutive
from l0prune.size.polynomial import SizeModel
from l0prune.size.selection import budget_for, classes_of, select


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[PruneGroup], SizeModel, np.ndarray]:
    """Random groups, a random polynomial size in which every unit costs something, and random probabilities."""
    units = draw(st.lists(st.integers(1, 12), min_size=1, max_size=5))
    groups = []
    for g, number in enumerate(units):
        place = Place(tensor=f"t{g}", dim=0, role=Role.CONSUMES, index=consecutive(number))
        bypass = Bypass(module=f"m{g}") if draw(st.booleans()) else None
        groups.append(PruneGroup(name=f"g{g}", kind="unit", units=number, places=(place,), bypass=bypass))
    coefficients = {(): draw(st.integers(0, 50))}
    for g in range(len(units)):
        coefficients[((g, 1),)] = draw(st.integers(1, 200))
        coefficients[((g, 2),)] = draw(st.integers(0, 3))
        coefficients[((g, 0),)] = draw(st.integers(0, 20))
        if g:
            coefficients[((g - 1, 1), (g, 1))] = draw(st.integers(0, 9))
    seed, ties = draw(st.integers(0, 2**31)), draw(st.booleans())
    probabilities = np.random.default_rng(seed).uniform(size=sum(units))
    return groups, SizeModel(groups, coefficients), np.round(probabilities, 1) if ties else probabilities


def counts_of(kept: np.ndarray, size: SizeModel) -> np.ndarray:
    return np.array([part.sum() for part in np.split(kept, np.cumsum(size.units)[:-1])])


def feasible_budget(size: SizeModel, share: float, round_to: int) -> int:
    """A budget between the smallest rounded size and the dense one."""
    smallest = size.exact(np.where(size.least > 0, np.minimum(round_to, size.units), 0))
    return round(smallest + share * (size.total - smallest))


@settings(deadline=None, max_examples=60)
@given(problems(), st.floats(0, 1))
def test_meets_the_budget_from_below_within_the_cheapest_unit(
    problem: tuple[list[PruneGroup], SizeModel, np.ndarray], share: float
) -> None:
    groups, size, probabilities = problem
    budget = round(size.floor + share * (size.total - size.floor))
    kept = select(probabilities, groups, size, budget)
    counts = counts_of(kept, size)
    assert size.exact(counts) <= budget
    assert (counts >= size.least).all()
    for g, number in enumerate(size.units):
        if counts[g] < number:
            assert size.exact(counts + np.eye(len(counts), dtype=int)[g]) > budget


@settings(deadline=None, max_examples=40)
@given(problems(), st.floats(0, 1))
def test_keeps_the_best_units_of_each_group(
    problem: tuple[list[PruneGroup], SizeModel, np.ndarray], share: float
) -> None:
    groups, size, probabilities = problem
    kept = select(probabilities, groups, size, round(size.floor + share * (size.total - size.floor)))
    ends = np.cumsum(size.units)[:-1]
    for mask, p in zip(np.split(kept, ends), np.split(probabilities, ends), strict=True):
        if mask.any() and not mask.all():
            assert p[mask].min() >= p[~mask].max()


@settings(deadline=None, max_examples=25)
@given(problems(), st.floats(0, 1), st.integers(2, 4))
def test_rounds_each_group(
    problem: tuple[list[PruneGroup], SizeModel, np.ndarray], share: float, round_to: int
) -> None:
    groups, size, probabilities = problem
    budget = feasible_budget(size, share, round_to)
    counts = counts_of(select(probabilities, groups, size, budget, round_to=round_to), size)
    assert size.exact(counts) <= budget
    assert all(kept % round_to == 0 or kept == number for kept, number in zip(counts, size.units, strict=True))


def test_units_are_rounded_by_their_channels() -> None:
    """A head of 6 channels needs a fellow to make a multiple of 4; a conv channel is one, flattened or not."""
    tensors = (
        {"q": (0, 6), "k": (0, 6), "constant": (1, 1), "out": (1, 6)},
        {"conv": (0, 1), "bias": (0, 1), "out": (1, 9)},
    )
    groups = []
    for g, places in enumerate(tensors):
        made = [
            Place(tensor=f"{g}.{name}", dim=dim, role=Role.CONSUMES, index=consecutive(10, width))
            for name, (dim, width) in places.items()
        ]
        groups.append(PruneGroup(name=f"g{g}", kind="unit", units=10, places=tuple(made)))
    assert [[group.step(multiple) for multiple in (1, 2, 4, 12, 32)] for group in groups] == [
        [1, 1, 2, 2, 10],
        [1, 2, 4, 10, 10],
    ]
    size = SizeModel(groups, {((0, 1),): 1, ((1, 1),): 1})
    assert size.floor_for(4) == 6
    assert counts_of(select(np.full(20, 0.5), groups, size, 13, round_to=4), size).tolist() == [8, 4]


def test_goes_across_groups_rather_than_group_by_group() -> None:
    place = Place(tensor="t", dim=0, role=Role.CONSUMES, index=consecutive(4))
    bypass = Bypass(module="m")
    groups = [PruneGroup(name=name, kind="unit", units=4, places=(place,), bypass=bypass) for name in "ab"]
    size = SizeModel(groups, {((0, 1),): 10, ((1, 1),): 10})
    kept = select(np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]), groups, size, 40)
    assert kept.tolist() == [True] * 4 + [False] * 4


def test_impossible_target_names_the_most_that_can_be_removed() -> None:
    place = Place(tensor="t", dim=0, role=Role.CONSUMES, index=consecutive(3))
    groups = [PruneGroup(name="a", kind="unit", units=3, places=(place,))]
    size = SizeModel(groups, {(): 10, ((0, 1),): 30})
    with pytest.raises(TargetError, match=r"at most 0\.6000"):
        budget_for(size, 0.7)
    assert budget_for(size, 0.6) == 40
    assert budget_for(size, 0.9 - 0.3) >= size.floor
    for outside in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(TargetError, match="between 0 and 1"):
            budget_for(size, outside)


@given(problems(), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_budget_is_used_for_a_larger_size(
    problem: tuple[list[PruneGroup], SizeModel, np.ndarray], one: float, other: float
) -> None:
    groups, size, probabilities = problem
    budgets = [round(size.floor + share * (size.total - size.floor)) for share in sorted((one, other))]
    less, more = (size.exact(counts_of(select(probabilities, groups, size, budget), size)) for budget in budgets)
    assert less <= more
    assert size.exact(counts_of(select(probabilities, groups, size, size.total), size)) == size.total


@given(problems(), st.floats(0, 1), st.integers(1, 4))
def test_ties_are_broken_alike_every_time(
    problem: tuple[list[PruneGroup], SizeModel, np.ndarray], share: float, round_to: int
) -> None:
    groups, size, probabilities = problem
    budget = feasible_budget(size, share, round_to)
    for flat in (probabilities, np.full(len(probabilities), 0.5)):
        kept = select(flat, groups, size, budget, round_to=round_to)
        assert np.array_equal(kept, select(flat.copy(), groups, size, budget, round_to=round_to))
    # Among equals the first of a group stay.
    for mask in np.split(kept, np.cumsum(size.units)[:-1]):
        assert mask.tolist() == sorted(mask.tolist(), reverse=True)


@given(problems(), st.integers(1, 4), st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_a_refusal_names_a_target_that_is_met(
    problem: tuple[list[PruneGroup], SizeModel, np.ndarray], round_to: int, target: float
) -> None:
    groups, size, probabilities = problem
    try:
        budget = budget_for(size, target, round_to=round_to)
    except TargetError as error:
        most = float(str(error.expected).removeprefix("at most "))
        assert most < target
        # Nothing at all can be removed where the floor is the whole.
        assume(most > 0)
        budget, target = budget_for(size, most, round_to=round_to), most
    kept = select(probabilities, groups, size, budget, round_to=round_to)
    assert size.exact(counts_of(kept, size)) <= (1 - target) * size.total + 1e-6


def test_a_target_out_of_reach_with_rounding_is_refused_before_training() -> None:
    model = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 2))
    places = [
        Place(tensor=tensor, dim=dim, role=role, index=consecutive(8))
        for tensor, dim, role in (
            ("0.weight", 0, Role.PRODUCES),
            ("0.bias", 0, Role.PRODUCES),
            ("1.weight", 1, Role.CONSUMES),
        )
    ]
    group = PruneGroup(name="hidden", kind="unit", units=8, places=tuple(places))
    target = 0.7  # 50 parameters: 2 of 8 units fit, a multiple of 4 does not
    GatedModel(model, [group], target_sparsity=target).detach()
    with pytest.raises(TargetError, match=r"at most 0\.4800.*round_to"):
        GatedModel(model, [group], target_sparsity=target, config=GateConfig(round_to=4))
    gated = GatedModel(model, [group], target_sparsity=0.48, config=GateConfig(round_to=4))
    assert gated.gates.select().sum() == 4


def test_equal_units_keep_to_the_multiple() -> None:
    # The mean of six times 0.003 comes out below 0.003 in floating point.
    place = Place(tensor="t", dim=0, role=Role.CONSUMES, index=consecutive(7))
    group = PruneGroup(name="a", kind="unit", units=7, places=(place,), bypass=Bypass(module="m"))
    kept = select(np.full(7, 0.003), [group], SizeModel([group], {((0, 1),): 1}), 6, round_to=6)
    assert kept.tolist() == [True] * 6 + [False]


@settings(deadline=None, max_examples=60)
@given(problems(), st.floats(0, 1), st.integers(1, 4))
def test_uniform_groups_keep_equally_many_of_their_best_units_and_meet_the_budget(
    problem: tuple[list[PruneGroup], SizeModel, np.ndarray], share: float, round_to: int
) -> None:
    groups, size, probabilities = problem
    kept = select(probabilities, groups, size, feasible_budget(size, share, round_to), round_to=round_to, uniform=True)
    counts = counts_of(kept, size)
    assert size.exact(counts) <= feasible_budget(size, share, round_to)
    classes = classes_of(groups, uniform=True)
    for number in set(classes):
        assert len(set(counts[classes == number])) == 1
    for g, part in enumerate(np.split(kept, np.cumsum(size.units)[:-1])):
        own = np.split(probabilities, np.cumsum(size.units)[:-1])[g]
        assert not part.any() or part.all() or own[part].min() >= own[~part].max()
        # No class could keep a step more.
        mine = classes == classes[g]
        more = counts + np.where(mine, np.minimum(groups[g].step(round_to), size.units - counts), 0)
        assert part.all() or size.exact(more) > feasible_budget(size, share, round_to)


@settings(deadline=None, max_examples=40)
@given(problems(), st.floats(0, 1))
def test_without_two_groups_alike_uniform_changes_nothing(
    problem: tuple[list[PruneGroup], SizeModel, np.ndarray], share: float
) -> None:
    groups, size, probabilities = problem
    assume(len(set(classes_of(groups, uniform=True))) == len(groups))
    budget = feasible_budget(size, share, 1)
    one, other = (select(probabilities, groups, size, budget, uniform=uniform) for uniform in (False, True))
    assert (one == other).all()
