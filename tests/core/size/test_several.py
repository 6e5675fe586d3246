"""Several budgets: each is met from below, nothing that fits is left out, and the bound is above every choice."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l0prune import Bypass, Place, PruneGroup, Role, TargetError, consecutive
from l0prune.size.limits import Bounds, bounds_of
from l0prune.size.peak import PeakSize
from l0prune.size.polynomial import SizeModel
from l0prune.size.selection import select
from l0prune.size.several import Budget, choose, explained

Problem = tuple[list[PruneGroup], list[Budget], np.ndarray]


@st.composite
def problems(draw: st.DrawFn, most_units: int = 6, linear: bool = False) -> Problem:
    """Groups, two or three polynomial sizes with a feasible budget each, and random scores."""
    units = draw(st.lists(st.integers(1, most_units), min_size=1, max_size=4))
    groups = []
    for g, number in enumerate(units):
        place = Place(tensor=f"t{g}", dim=0, role=Role.CONSUMES, index=consecutive(number))
        bypass = Bypass(module=f"m{g}") if draw(st.booleans()) else None
        groups.append(PruneGroup(name=f"g{g}", kind="unit", units=number, places=(place,), bypass=bypass))
    budgets = []
    for m in range(draw(st.integers(2, 3))):
        coefficients = {(): draw(st.integers(0, 50))}
        for g in range(len(units)):
            # Some units cost nothing of a metric.
            coefficients[((g, 1),)] = draw(st.integers(0 if m else 1, 200))
            if not linear:
                coefficients[((g, 2),)] = draw(st.integers(0, 3))
                coefficients[((g, 0),)] = draw(st.integers(0, 20))
                if g:
                    coefficients[((g - 1, 1), (g, 1))] = draw(st.integers(0, 9))
        size = SizeModel(groups, coefficients)
        if not linear and draw(st.booleans()):
            # A maximum: in some groups units cost nothing until others are gone.
            moments = [{((g, 1),): draw(st.integers(1, 300))} for g in range(len(units))]
            size = PeakSize(groups, coefficients, moments, counts="bytes")
        if size.total > 0:
            most = round(size.floor + draw(st.floats(0, 1)) * (size.total - size.floor))
            budgets.append(Budget(f"m{m}", size, 1 - most / size.total, most))
    seed = draw(st.integers(0, 2**31))
    return groups, budgets, np.random.default_rng(seed).uniform(size=sum(units))


def counts_of(kept: np.ndarray, size: SizeModel) -> np.ndarray:
    return np.array([part.sum() for part in np.split(kept, np.cumsum(size.units)[:-1])])


def free(groups: list[PruneGroup]) -> Bounds:
    return bounds_of(groups, {})


@settings(deadline=None, max_examples=50)
@given(problems(), st.booleans())
def test_every_budget_is_met_and_nothing_more_fits(problem: Problem, search: bool) -> None:
    groups, budgets, scores = problem
    found = choose(scores, groups, budgets, bounds=free(groups), search=search)
    assert all(budget.size.exact(found.counts) <= budget.most for budget in budgets)
    assert (counts_of(found.kept, budgets[0].size) == found.counts).all()
    for g, group in enumerate(groups):
        assert found.counts[g] >= group.least_units
        if found.counts[g] < group.units:
            more = found.counts + np.eye(len(groups), dtype=int)[g]
            assert any(budget.size.exact(more) > budget.most for budget in budgets)


def worth_of(scores: np.ndarray, budget: Budget, counts: np.ndarray) -> float:
    """Scores count per unit of the first budget's price."""
    _, slopes = budget.size.tangent()
    parts = np.split(scores, np.cumsum(budget.size.units)[:-1])
    sums = [np.sort(part)[::-1][:kept].sum() for part, kept in zip(parts, counts, strict=True)]
    return float(np.array(sums) @ slopes / budget.size.total)


@settings(deadline=None, max_examples=40)
@given(problems(most_units=4))
def test_no_choice_is_worth_more_than_the_bound(problem: Problem) -> None:
    groups, budgets, scores = problem
    found = choose(scores, groups, budgets, bounds=free(groups))
    best = 0.0
    for counts in itertools.product(*(range(group.least_units, group.units + 1) for group in groups)):
        kept = np.array(counts)
        if all(budget.size.exact(kept) <= budget.most for budget in budgets):
            best = max(best, worth_of(scores, budgets[0], kept))
    assert found.worth == pytest.approx(worth_of(scores, budgets[0], found.counts), abs=1e-9)
    assert found.worth <= best + 1e-9 <= found.bound + 2e-9
    assert best <= found.bound * (1 + 1e-9)
    assert found.worth >= (1 - found.gap) * found.bound - 1e-9


def test_many_small_units_come_near_the_bound() -> None:
    """Three metrics that price groups differently, linear: the gap is a unit's."""
    random = np.random.default_rng(0)
    groups = []
    for g in range(12):
        place = Place(tensor=f"t{g}", dim=0, role=Role.CONSUMES, index=consecutive(300))
        bypass = Bypass(module=f"m{g}")
        groups.append(PruneGroup(name=f"g{g}", kind="unit", units=300, places=(place,), bypass=bypass))
    sizes = [SizeModel(groups, {((g, 1),): int(random.integers(1, 50)) for g in range(12)}) for _ in range(3)]
    budgets = [
        Budget(f"m{m}", size, 1 - share, round(size.total * share))
        for m, (size, share) in enumerate(zip(sizes, (0.4, 0.35, 0.5), strict=True))
    ]
    scores = random.uniform(size=3600)
    ordered = choose(scores, groups, budgets, bounds=free(groups), search=False)
    found = choose(scores, groups, budgets, bounds=free(groups))
    assert found.worth >= ordered.worth
    assert found.gap < 0.02


@settings(deadline=None, max_examples=30)
@given(problems())
def test_one_budget_chooses_as_before(problem: Problem) -> None:
    groups, (budget, *_), scores = problem
    found = choose(scores, groups, [budget], bounds=free(groups), search=False)
    assert (found.kept == select(scores, groups, budget.size, budget.most)).all()


@settings(deadline=None, max_examples=40)
@given(problems(), st.data())
def test_limits_hold_exactly(problem: Problem, data: st.DataObject) -> None:
    groups, budgets, scores = problem
    limits = {}
    for group in groups:
        share, ceiling = sorted((data.draw(st.floats(0, 1)), data.draw(st.floats(0, 1))))
        limits[group.name] = (share, ceiling)
    try:
        bounds = bounds_of(groups, limits)
    except TargetError:
        return  # No whole number lies between.
    budgets = [budget._replace(most=max(budget.most, budget.size.exact(bounds.low))) for budget in budgets]
    found = choose(scores, groups, budgets, bounds=bounds)
    for group, kept in zip(groups, found.counts, strict=True):
        share, ceiling = limits[group.name]
        assert share * group.units - 1e-6 <= kept <= ceiling * group.units + 1e-6
    assert all(budget.size.exact(found.counts) <= budget.most for budget in budgets)


def test_what_binds_is_named_and_what_each_would_allow() -> None:
    places = [Place(tensor=f"t{g}", dim=0, role=Role.CONSUMES, index=consecutive(10)) for g in range(2)]
    groups = [PruneGroup(name=f"g{g}", kind="unit", units=10, places=(places[g],)) for g in range(2)]
    cheap, dear = SizeModel(groups, {((0, 1),): 1, ((1, 1),): 1}), SizeModel(groups, {((0, 1),): 9, ((1, 1),): 1})
    budgets = [Budget("cheap", cheap, 0.1, 18), Budget("dear", dear, 0.5, 50)]
    scores = np.linspace(1, 0.1, 20)
    settings = {"bounds": free(groups), "search": False}
    found = choose(scores, groups, budgets, **settings)
    rows = explained(scores, groups, budgets, found.counts, bounds=free(groups))
    assert [(row["metric"], row["binds"]) for row in rows] == [("cheap", False), ("dear", True)]
    assert found.counts.tolist() == [5, 5]
    assert choose(scores, groups, budgets, bounds=free(groups)).worth > found.worth
    assert rows[0]["alone"] == {"cheap": 18, "dear": 98}
    assert rows[0]["alone_units"] == 0.9
    assert rows[1]["alone"]["dear"] <= 50
