"""Random networks of every kind of place: counted element by element, cut, proved, and broken on purpose.

Concatenated convolutions, a flattened one (several indices a unit), a residual width on both dimensions of a matrix,
and a block that loses hidden units or goes as a whole.
"""

import copy
import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from l0prune import Bypass, GatedModel, GroupError, Norm, Place, ProofError, PruneGroup, Role, consecutive, prove_groups
from l0prune.proof.exactness import relative_difference
from l0prune.proof.trials import find_faults
from l0prune.removal.apply import apply_plan
from l0prune.removal.plan import make_plan
from l0prune.size.parameters import parameter_size
from l0prune.size.polynomial import SizeModel
from l0prune.size.selection import kept_indices
from l0prune.support.modules import model_shapes

SAMPLES = 5
SIZES = ("left", "right", "top", "stream", "hidden")


class Mlp(nn.Module):
    def __init__(self, stream: int, hidden: int, bias: bool) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(stream, hidden, bias), nn.Linear(hidden, stream)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.tanh(self.up(x)))


class Network(nn.Module):
    def __init__(self, left: int, right: int, top: int, stream: int, hidden: int, bias: bool) -> None:
        super().__init__()
        self.left, self.right = nn.Conv1d(2, left, 3, bias=bias), nn.Conv1d(2, right, 3, bias=bias)
        self.batch = nn.BatchNorm1d(left + right)
        self.top = nn.Conv1d(left + right, top, 2, bias=bias)
        self.flat = nn.Linear(top * (SAMPLES - 3), stream, bias)
        self.square = nn.Linear(stream, stream, bias)
        self.norm, self.last = nn.LayerNorm(stream), nn.RMSNorm(stream)
        self.mlp = Mlp(stream, hidden, bias)
        self.head = nn.Linear(stream, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.batch(torch.cat([self.left(x), self.right(x)], dim=1)))
        x = self.flat(torch.tanh(self.top(x)).flatten(1))
        x = x + self.square(torch.tanh(x))
        return self.head(self.last(x + self.mlp(self.norm(x))))


def make_network(sizes: Sequence[int], bias: bool, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    network = Network(*sizes, bias).double().eval()
    with torch.no_grad():
        for tensor in [*network.parameters(), network.batch.running_mean]:
            tensor.copy_(torch.randn_like(tensor))
        network.batch.running_var.uniform_(0.5, 2.0)
    return network


def make_groups(network: Network) -> list[PruneGroup]:
    shapes = model_shapes(network)
    left, right, top = (network.get_parameter(f"{name}.weight").shape[0] for name in ("left", "right", "top"))
    hidden, stream = network.mlp.up.weight.shape

    def places(units: int, text: str) -> tuple[Place, ...]:
        """Words "tensor:dim", with "<" where it consumes, "+offset" and "*width"; absent tensors are left out."""
        found = []
        for word in text.split():
            tensor, _, rest = word.partition(":")
            rest, _, width = rest.partition("*")
            rest, _, offset = rest.partition("+")
            role = Role.CONSUMES if rest.endswith("<") else Role.PRODUCES
            dim = None if rest[0] == "-" else int(rest[0])
            if tensor in shapes:
                index = consecutive(units, int(width or 1), int(offset or 0))
                found.append(Place(tensor=tensor, dim=dim, role=role, index=index))
        return tuple(found)

    batch = " ".join(f"batch.{name}:0+{{0}}" for name in ("weight", "bias", "running_mean", "running_var"))
    bypass = Bypass(module="mlp")
    texts = {
        "left": (left, f"left.weight:0 left.bias:0 {batch.format(0)} top.weight:1<+0"),
        "right": (right, f"right.weight:0 right.bias:0 {batch.format(left)} top.weight:1<+{left}"),
        "top": (top, f"top.weight:0 top.bias:0 flat.weight:1<*{SAMPLES - 3}"),
        "stream": (
            stream,
            "flat.weight:0 flat.bias:0 square.weight:0 square.bias:0 square.weight:1< norm.weight:0 norm.bias:0 "
            "last.weight:0 mlp.up.weight:1< mlp.down.weight:0 mlp.down.bias:0 head.weight:1<",
        ),
        "hidden": (hidden, "mlp.up.weight:0 mlp.up.bias:0 mlp.down.weight:1<"),
        "block": (1, "mlp.up.weight:- mlp.up.bias:- mlp.down.weight:-< mlp.down.bias:-<"),
    }
    more = {
        "stream": {"norms": (Norm(module="norm"), Norm(module="last"))},
        "hidden": {"alive_with": ("mlp.down.bias",), "bypass": bypass},
        "block": {"bypass": bypass},
    }
    return [
        PruneGroup(name=name, kind=name, units=units, places=places(units, text), **more.get(name, {}))
        for name, (units, text) in texts.items()
    ]


def networks(largest: int) -> st.SearchStrategy[Network]:
    sizes = st.tuples(*[st.integers(1, largest)] * len(SIZES))
    return st.builds(make_network, sizes, st.booleans(), st.integers(0, 2**31))


def make_pattern(groups: Sequence[PruneGroup], seed: int) -> np.ndarray:
    """Units kept (N,), any share of each group, at least one where a group cannot be emptied."""
    generator = np.random.default_rng(seed)
    parts = []
    for group in groups:
        kept = generator.uniform(size=group.units) < generator.uniform(0, 1.3)
        kept[0] |= not kept.any() and group.bypass is None
        parts.append(kept)
    return np.concatenate(parts)


def counts_of(kept: np.ndarray, size: SizeModel) -> np.ndarray:
    return np.array([part.sum() for part in np.split(kept, np.cumsum(size.units)[:-1])])


def count_elements(network: nn.Module, groups: Sequence[PruneGroup], kept: np.ndarray) -> int:
    """Elements of parameters that no closed unit stands on, one by one."""
    total, parts = 0, np.split(kept, np.cumsum([group.units for group in groups])[:-1])
    for name, parameter in network.named_parameters():
        stays = np.ones(parameter.shape, dtype=bool)
        for group, mask in zip(groups, parts, strict=True):
            if name in group.alive_with and not mask.any():
                stays[:] = False
            for place in group.places:
                if place.tensor == name and place.dim is None:
                    stays &= mask[0]
                elif place.tensor == name:
                    np.moveaxis(stays, place.dim, 0)[place.index[~mask].ravel()] = False
        total += int(stays.sum())
    return total


@settings(max_examples=60)
@given(networks(4), st.integers(0, 2**31))
def test_exact_size_is_the_count_and_the_cut_changes_nothing(network: Network, seed: int) -> None:
    groups = make_groups(network)
    kept, dense = make_pattern(groups, seed), copy.deepcopy(network)
    gated = GatedModel(network, groups, target_sparsity=1e-15).eval()
    values = torch.from_numpy(kept) * torch.linspace(0.2, 1, len(kept), dtype=torch.float64)
    x = torch.randn(3, 2, SAMPLES, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    with gated.gates.fixed(values), torch.no_grad():
        expected = network(x)
        pruned, plan = gated.pruned()
    size = gated.size_model.exact(counts_of(kept, gated.size_model))
    assert size == count_elements(dense, groups, kept)
    assert size == sum(parameter.numel() for parameter in pruned.parameters())
    assert relative_difference(expected, pruned(x)) < 1e-10
    plain = make_plan(groups, kept_indices(kept, groups), model_shapes(dense))
    assert plain.to_json() == plan.to_json()
    assert size == sum(parameter.numel() for parameter in apply_plan(dense, plain).parameters())


@settings(max_examples=4)
@given(networks(2), st.integers(0, 2**31))
def test_expected_size_is_the_mean_over_all_patterns(network: Network, seed: int) -> None:
    groups = make_groups(network)
    size = parameter_size(network, groups)
    p = np.random.default_rng(seed).uniform(size=int(size.units.sum()))
    mean = 0.0
    for pattern in itertools.product((False, True), repeat=len(p)):
        kept = np.array(pattern)
        mean += np.where(kept, p, 1 - p).prod() * size.exact(counts_of(kept, size))
    assert size.expected(torch.from_numpy(p)).item() == pytest.approx(mean, rel=1e-12)


@settings(max_examples=4)
@given(networks(4), st.integers(0, 2**31))
def test_expected_size_is_the_mean_of_sampled_counts(network: Network, seed: int) -> None:
    groups = make_groups(network)
    size, generator = parameter_size(network, groups), np.random.default_rng(seed)
    p = generator.uniform(0.05, 0.95, int(size.units.sum()))
    sizes = [count_elements(network, groups, generator.uniform(size=len(p)) < p) for _ in range(400)]
    error = 4 * np.std(sizes) / np.sqrt(len(sizes))
    assert abs(np.mean(sizes) - size.expected(torch.from_numpy(p)).item()) <= error


def test_a_residual_width_counts_by_its_second_moment() -> None:
    network = make_network((1, 1, 1, 6, 1), bias=False)
    groups = make_groups(network)
    # `square` alone has the width on both sides; without its places it counts in full.
    others = [
        replace(group, places=tuple(place for place in group.places if place.tensor != "square.weight"))
        for group in groups
    ]
    p = torch.full((sum(group.units for group in groups),), 0.5, dtype=torch.float64)
    rest = parameter_size(network, others).expected(p).item() - 6 * 6
    variance, mean = 6 * 0.25, 3.0
    assert parameter_size(network, groups).expected(p).item() - rest == pytest.approx(variance + mean**2)


@pytest.fixture
def wide() -> tuple[Network, list[PruneGroup], Tensor]:
    network = make_network((4, 3, 5, 6, 7), bias=True)
    x = torch.randn(3, 2, SAMPLES, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return network, make_groups(network), x


def test_right_groups_are_proved(wide: tuple[Network, list[PruneGroup], Tensor]) -> None:
    network, groups, x = wide
    gated = GatedModel(network, groups, target_sparsity=0.5).eval()
    assert prove_groups(gated, lambda model: model(x), tolerance=1e-10) < 1e-10


def mutants() -> list[tuple[str, str, int]]:
    """Every way to spoil one group: a place left out, a consumer misaligned, a norm or a switch forgotten."""
    found = []
    for group in make_groups(make_network((4, 3, 5, 6, 7), bias=True)):
        consumers = [i for i, place in enumerate(group.places) if place.role is Role.CONSUMES]
        found += [(group.name, "place", i) for i in range(len(group.places)) if consumers != [i]]
        if group.units > 1:
            found += [(group.name, "index", i) for i in consumers]
        if len(consumers) > 1:
            found += [(group.name, "role", i) for i in consumers]
        found += [(group.name, "norm", i) for i in range(len(group.norms))]
        found += [(group.name, "switch", i) for i in range(len(group.alive_with))]
    return found


def spoil(group: PruneGroup, how: str, i: int) -> PruneGroup:
    def without(items: tuple) -> tuple:
        return items[:i] + items[i + 1 :]

    place = group.places[i]
    match how:
        case "place":
            return replace(group, places=without(group.places))
        case "index":
            places = (replace(place, index=np.roll(place.index, 1, axis=0)), *without(group.places))
            return replace(group, places=places)
        case "role":
            return replace(group, places=(replace(place, role=Role.PRODUCES), *without(group.places)))
        case "norm":
            return replace(group, norms=without(group.norms))
        case _:
            return replace(group, alive_with=without(group.alive_with))


@pytest.mark.parametrize(("name", "how", "i"), mutants())
def test_a_spoiled_group_is_found_and_alone_blamed(
    wide: tuple[Network, list[PruneGroup], Tensor], name: str, how: str, i: int
) -> None:
    network, groups, x = wide
    spoiled = [spoil(group, how, i) if group.name == name else group for group in groups]
    assert blamed(network, spoiled, x) == {name}


def blamed(network: Network, groups: list[PruneGroup], x: Tensor) -> set[str]:
    """Groups that are refused at the attachment of the gates, or else by the proof."""
    try:
        gated = GatedModel(network, groups, target_sparsity=0.5).eval()
    except GroupError as error:
        return {str(error.where).partition(",")[0]}
    _, faults = find_faults(gated, lambda model: model(x))
    with pytest.raises(ProofError, match=f"not exact: {next(iter(faults), '')}"):
        prove_groups(gated, lambda model: model(x))
    return set(faults)
