"""A size that is a maximum: its exact value, its gradient, and linear functions below it."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from l0prune import Place, PruneGroup, Role, consecutive
from l0prune.size.peak import PeakSize, undominated
from l0prune.size.polynomial import SizeModel


@st.composite
def sizes(draw: st.DrawFn) -> PeakSize:
    units = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    groups = [
        PruneGroup(
            name=f"g{g}",
            kind="unit",
            units=number,
            places=(Place(tensor=f"t{g}", dim=0, role=Role.CONSUMES, index=consecutive(number)),),
        )
        for g, number in enumerate(units)
    ]
    number = st.integers(0, len(units) - 1)
    monomial = st.lists(number, max_size=3).map(lambda gs: tuple(sorted((g, min(3, gs.count(g))) for g in set(gs))))
    polynomial = st.dictionaries(monomial, st.integers(1, 50), max_size=5)
    return PeakSize(groups, draw(polynomial) | {(): 1}, draw(st.lists(polynomial, max_size=5)), counts="bytes")


def parts(size: PeakSize) -> tuple[SizeModel, list[SizeModel]]:
    return SizeModel(size.groups, size.always), [SizeModel(size.groups, moment) for moment in size.moments]


@settings(deadline=None, max_examples=25)
@given(sizes(), st.integers(0, 2**31))
def test_it_is_the_largest_moment_and_what_is_always_there(size: PeakSize, seed: int) -> None:
    random = np.random.default_rng(seed)
    always, moments = parts(size)
    constant, slopes = size.tangent()
    for _ in range(5):
        kept = random.integers(0, size.units + 1)
        largest = max(moment.exact(kept) for moment in moments)
        assert size.exact(kept) == always.exact(kept) + largest
        assert constant + slopes @ kept <= size.exact(kept) + 1e-6 * size.total
        gates = np.concatenate([np.arange(units) < count for units, count in zip(size.units, kept, strict=True)])
        p = torch.from_numpy(gates.astype(float))
        assert float(size.expected(p)) == pytest.approx(size.exact(kept), rel=1e-9)
        assert float(size.priced(p)) >= size.exact(kept) * (1 - 1e-9)
    p = torch.from_numpy(random.uniform(size=int(size.units.sum())))
    expected = max(float(moment.expected(p)) for moment in moments) + float(always.expected(p))
    assert float(size.expected(p)) == pytest.approx(expected, rel=1e-9)


@settings(deadline=None, max_examples=25)
@given(sizes(), st.integers(0, 2**31))
def test_nothing_is_lost_where_units_or_moments_go(size: PeakSize, seed: int) -> None:
    random = np.random.default_rng(seed)
    kept = random.integers(0, size.units + 1)
    fewer = PeakSize(size.groups, size.always, undominated(size.moments), counts="bytes")
    assert fewer.exact(kept) == size.exact(kept)
    numbers = np.flatnonzero(random.uniform(size=len(size.units)) < 0.7).tolist()
    others_whole = np.where(np.isin(np.arange(len(kept)), numbers), kept, size.units)
    assert size.where_others_stay(numbers).exact(kept[numbers]) == size.exact(others_whole)
    others_gone = np.where(np.isin(np.arange(len(kept)), numbers), kept, 0)
    left = size.restricted([size.groups[g] for g in numbers], numbers)
    assert left.exact(kept[numbers]) == size.exact(others_gone)
    assert left.total == size.total


@settings(deadline=None, max_examples=12)
@given(sizes(), st.integers(0, 2**31))
def test_gradients(size: PeakSize, seed: int) -> None:
    p = torch.from_numpy(np.random.default_rng(seed).uniform(0.1, 0.9, int(size.units.sum()))).requires_grad_()
    assume(size.expected(p).requires_grad)
    assert torch.autograd.gradcheck(size.priced, (p,))
    (slope,) = torch.autograd.grad(size.expected(p), p)
    always, moments = parts(size)
    values = torch.stack([moment.expected(p) for moment in moments])
    if (values.max() - values < 1e-6).sum() == 1:  # Else the largest one has corners.
        (wanted,) = torch.autograd.grad(always.expected(p) + values.max(), p)
        assert torch.allclose(slope, wanted)


def test_units_just_below_the_peak_have_a_price() -> None:
    groups = [
        PruneGroup(
            name=f"g{g}",
            kind="unit",
            units=10,
            places=(Place(tensor=f"t{g}", dim=0, role=Role.CONSUMES, index=consecutive(10)),),
        )
        for g in range(3)
    ]
    size = PeakSize(groups, {(): 5}, [{((0, 1),): 100}, {((1, 1),): 95}, {((2, 1),): 1}], counts="bytes")
    first, second, third = size.of_units()
    assert first > second > 30 > third
