"""The size polynomial: exactly what counting finds, and in expectation what sampling finds."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from l0prune import Bypass, Place, PruneGroup, Role, consecutive
from l0prune.errors import GroupError
from l0prune.removal.apply import apply_plan
from l0prune.removal.plan import make_plan
from l0prune.size.parameters import parameter_size
from l0prune.size.polynomial import SizeModel
from l0prune.size.selection import kept_indices
from l0prune.support.modules import model_shapes

Make = Callable[..., tuple[nn.Module, list[PruneGroup]]]


def count(mask: np.ndarray, units: np.ndarray) -> np.ndarray:
    return np.array([part.sum() for part in np.split(mask, np.cumsum(units)[:-1])])


def enumerate_mean(size: SizeModel, probabilities: np.ndarray) -> float:
    """The expectation by going through every pattern."""
    mean = 0.0
    for pattern in itertools.product((0, 1), repeat=len(probabilities)):
        mask = np.array(pattern)
        weight = np.prod(np.where(mask, probabilities, 1 - probabilities))
        mean += weight * size.exact(count(mask, size.units))
    return mean


def test_parameters_within_reach_lack_the_tensors_without_units(make_network: Make) -> None:
    network, groups = make_network()
    network.table = nn.Embedding(50, 3)  # type: ignore[assignment]
    whole, reach = parameter_size(network, groups), parameter_size(network, groups, within_reach=True)
    standing = {place.tensor for group in groups for place in group.places}
    standing |= {tensor for group in groups for tensor in group.alive_with}
    beyond = sum(tensor.numel() for name, tensor in network.named_parameters() if name not in standing)
    assert beyond >= 150
    for draw in range(20):
        kept = np.random.default_rng(draw).integers(whole.least, whole.units + 1)
        assert whole.exact(kept) - reach.exact(kept) == beyond


def test_exact_size_is_the_counted_size_for_every_plan(make_network: Make) -> None:
    network, groups = make_network()
    size = parameter_size(network, groups)
    assert size.total == sum(p.numel() for p in network.parameters())
    for first, second in itertools.product(range(1, 5), range(7)):
        network, groups = make_network()
        mask = np.concatenate([np.arange(4) < first, np.arange(6) < second])
        plan = make_plan(groups, kept_indices(mask, groups), model_shapes(network))
        counted = sum(p.numel() for p in apply_plan(network, plan).parameters())
        assert size.exact(np.array([first, second])) == counted


@settings(deadline=None, max_examples=15)
@given(st.lists(st.floats(0, 1), min_size=10, max_size=10))
def test_expected_size_is_the_mean_over_all_patterns(probabilities: list[float]) -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 6), nn.Linear(6, 2))
    size = parameter_size(network, chain_groups())
    p = np.array(probabilities)
    assert size.expected(torch.tensor(p)).item() == pytest.approx(enumerate_mean(size, p), rel=1e-12)


def chain_groups() -> list[PruneGroup]:
    def at(tensor: str, dim: int, units: int, role: Role) -> Place:
        return Place(tensor=tensor, dim=dim, role=role, index=consecutive(units))

    make, read = Role.PRODUCES, Role.CONSUMES
    first = (at("0.weight", 0, 4, make), at("0.bias", 0, 4, make), at("1.weight", 1, 4, read))
    second = (at("1.weight", 0, 6, make), at("1.bias", 0, 6, make), at("2.weight", 1, 6, read))
    return [
        PruneGroup(name="a", kind="unit", units=4, places=first),
        PruneGroup(name="b", kind="unit", units=6, places=second, alive_with=("2.bias",), bypass=Bypass(module="2")),
    ]


def square_groups(power: int) -> tuple[nn.Module, list[PruneGroup]]:
    """One group on every dimension of a cube-like parameter."""
    module = nn.Module()
    module.cube = nn.Parameter(torch.zeros([4] * power))
    places = [Place(tensor="cube", dim=d, role=Role.CONSUMES, index=consecutive(4)) for d in range(power)]
    return module, [PruneGroup(name="g", kind="unit", units=4, places=tuple(places))]


@pytest.mark.parametrize("power", [1, 2, 3, 4])
def test_one_group_on_several_dimensions_uses_its_moments(power: int) -> None:
    module, groups = square_groups(power)
    size = parameter_size(module, groups)
    p = np.array([0.1, 0.5, 0.7, 0.9])
    assert size.expected(torch.tensor(p)).item() == pytest.approx(enumerate_mean(size, p), rel=1e-12)
    if power > 1:
        assert size.expected(torch.tensor(p)).item() > p.sum() ** power + 0.1


def test_five_dimensions_of_one_group_are_refused() -> None:
    with pytest.raises(GroupError, match="four dimensions"):
        parameter_size(*square_groups(5))


def test_expected_size_is_the_mean_of_sampled_sizes(make_network: Make) -> None:
    network, groups = make_network()
    size = parameter_size(network, groups)
    generator = np.random.default_rng(0)
    p = generator.uniform(0.05, 0.95, 10)
    sizes = [size.exact(count(generator.uniform(size=10) < p, size.units)) for _ in range(4000)]
    error = 4 * np.std(sizes) / np.sqrt(len(sizes))
    assert abs(np.mean(sizes) - size.expected(torch.tensor(p)).item()) < error


def test_gradient_agrees_with_finite_differences(make_network: Make) -> None:
    network, groups = make_network()
    p = torch.linspace(0.1, 0.9, 10, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(parameter_size(network, groups).expected, p)
    module, cube = square_groups(4)
    q = torch.linspace(0.2, 0.8, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(parameter_size(module, cube).expected, q)


def test_certain_gates_give_the_exact_size_and_finite_gradients(make_network: Make) -> None:
    network, groups = make_network()
    size = parameter_size(network, groups)
    p = torch.tensor([1.0] * 4 + [0.0] * 6, dtype=torch.float64, requires_grad=True)
    expected = size.expected(p)
    expected.backward()
    assert expected.item() == size.exact(np.array([4, 0]))
    assert p.grad is not None
    assert torch.isfinite(p.grad).all()
