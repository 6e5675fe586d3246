"""Eq. 3 and 4 against closed forms, sampling and finite differences."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from l0prune.errors import ConfigError
from l0prune.gates.hard_concrete import HardConcrete

GATE = HardConcrete()
LOCATIONS = st.floats(-6, 6)


@settings(deadline=None)
@given(LOCATIONS, st.floats(1e-4, 1 - 1e-4))
def test_transform_is_equation_3(log_alpha: float, u: float) -> None:
    v = 1 / (1 + math.exp(-(math.log(u / (1 - u)) + log_alpha) / (2 / 3)))
    expected = min(1.0, max(0.0, 1.2 * v - 0.1))
    got = GATE.transform(torch.tensor([log_alpha], dtype=torch.float64), torch.tensor([u], dtype=torch.float64))
    assert got.item() == pytest.approx(expected, abs=1e-12)


@settings(deadline=None)
@given(LOCATIONS)
def test_keep_probability_is_equation_4_and_the_share_of_uniforms_that_open(log_alpha: float) -> None:
    location = torch.tensor([log_alpha], dtype=torch.float64)
    expected = 1 / (1 + math.exp(-(log_alpha - 2 / 3 * math.log(0.1 / 1.1))))
    assert GATE.keep_probability(location).item() == pytest.approx(expected, abs=1e-12)
    # z grows with u, so the gate is open exactly for u above 1 - P(z != 0).
    edge = 1 - expected
    around = torch.tensor([edge * (1 - 1e-6), edge + (1 - edge) * 1e-6], dtype=torch.float64)
    closed, opened = GATE.transform(location.expand(2), around)
    assert closed == 0
    assert opened > 0


@pytest.mark.parametrize("log_alpha", [-3.0, -1.6, 0.0, 1.0, 4.6])
def test_samples_open_as_often_and_weigh_as_much_as_predicted(log_alpha: float) -> None:
    count = 200_000
    location = torch.full((count,), log_alpha, dtype=torch.float64)
    z = GATE.sample(location, torch.Generator().manual_seed(0))
    p = GATE.keep_probability(location[:1]).item()
    assert abs((z > 0).double().mean().item() - p) < 4 * math.sqrt(p * (1 - p) / count)
    assert abs(z.mean() - GATE.mean(location[:1])).item() < 4 * z.std().item() / math.sqrt(count)
    assert z.min() >= 0
    assert z.max() <= 1


@settings(deadline=None, max_examples=30)
@given(LOCATIONS)
def test_mean_is_the_integral_over_the_uniform(log_alpha: float) -> None:
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    integral = GATE.transform(torch.tensor(log_alpha, dtype=torch.float64).expand(len(u)), u).mean()
    assert GATE.mean(torch.tensor([log_alpha], dtype=torch.float64)).item() == pytest.approx(integral.item(), abs=1e-5)


def test_gradients_agree_with_finite_differences() -> None:
    location = torch.linspace(-2, 2, 7, dtype=torch.float64, requires_grad=True)
    uniform = torch.linspace(0.35, 0.6, 7, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a: GATE.transform(a, uniform), location)
    assert torch.autograd.gradcheck(GATE.keep_probability, location)
    assert torch.autograd.gradcheck(GATE.mean, location)


def test_location_is_the_published_start() -> None:
    assert HardConcrete.location(0.01) == pytest.approx(4.595, abs=1e-3)
    assert HardConcrete.location(0.5) == 0
    assert GATE.keep_probability(torch.zeros(1)).item() == pytest.approx(0.832, abs=1e-3)


@pytest.mark.parametrize("bad", [{"temperature": 0.0}, {"low": 0.0}, {"high": 1.0}])
def test_out_of_range_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="Hard Concrete"):
        HardConcrete(**bad)


@given(LOCATIONS)
def test_fully_open_as_often_as_the_uniforms_above_its_edge(log_alpha: float) -> None:
    # z = 1 where the stretched sigmoid passes 1: v > (1 - l) / (r - l).
    edge = 1 - 1 / (1 + math.exp(-(log_alpha - 2 / 3 * math.log(1.1 / 0.1))))
    location = torch.tensor([log_alpha] * 2, dtype=torch.float64)
    around = torch.tensor([edge * (1 - 1e-6), edge + (1 - edge) * 1e-6], dtype=torch.float64)
    below, above = GATE.transform(location, around)
    assert below < 1
    assert above == 1


@given(LOCATIONS, st.floats(1e-3, 3), st.floats(1e-4, 1 - 1e-4))
def test_everything_grows_with_the_location(log_alpha: float, step: float, u: float) -> None:
    locations = torch.tensor([log_alpha, log_alpha + step], dtype=torch.float64)
    for function in (GATE.keep_probability, GATE.mean, GATE.published_mask):
        lower, higher = function(locations)
        assert 0 < lower < higher < 1
    lower, higher = GATE.transform(locations, torch.tensor(u, dtype=torch.float64).expand(2))
    assert lower < higher or lower == higher in (0, 1)


@given(st.floats(0.2, 2), st.floats(-1, -0.01), st.floats(1.01, 2), st.floats(-4, 4))
def test_other_temperatures_and_stretches_obey_the_same_equations(
    temperature: float, low: float, high: float, log_alpha: float
) -> None:
    gate, location = HardConcrete(temperature=temperature, low=low, high=high), torch.tensor([log_alpha]).double()
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    z = gate.transform(location.expand(len(u)), u)
    assert gate.keep_probability(location).item() == pytest.approx((z > 0).double().mean().item(), abs=2e-5)
    assert gate.mean(location).item() == pytest.approx(z.mean().item(), abs=1e-3)
