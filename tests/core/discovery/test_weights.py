"""Discovery in layers whose weight is made of several tensors: all of those that it is a sum of carry the gates."""

from typing import Any

import pytest
import torch
from small_networks import Case, Net, chain, check_case, conv, filled, linear, on_images, on_rows, parameter
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

import l0prune
from l0prune.discovery.search import discover
from l0prune.groups import Role


def weighted(weight: Any) -> Any:
    """a, a linear layer whose weight is a function of the network's parameters, c."""
    return lambda m, x: m.c(torch.tanh(F.linear(torch.tanh(m.a(x)), weight(m))))


def adapted(m: Any) -> Tensor:
    return m.w + 0.5 * m.up @ m.down


def with_its_length(m: Any) -> Tensor:
    return m.size * adapted(m) / adapted(m).norm(dim=1, keepdim=True)


AROUND: dict[str, Any] = {"a": linear(3, 8), "c": linear(6, 2)}
ADAPTED: dict[str, Any] = {**AROUND, "w": parameter(6, 8), "up": parameter(6, 4), "down": parameter(4, 8)}
TWO: dict[str, Any] = {**AROUND, "w": parameter(6, 8), "v": parameter(6, 8)}

WEIGHTS: dict[str, Case] = {
    "a low-rank adapter": on_rows(weighted(adapted), "8 unit, 6 unit, 4 unit", **ADAPTED),
    "an adapter with its length apart": on_rows(
        weighted(with_its_length), "8 unit, 6 unit, 4 unit", **ADAPTED, size=parameter(6, 1)
    ),
    "a difference": on_rows(weighted(lambda m: m.w - m.v), "8 unit, 6 unit", **TWO),
    "a sum of sums": on_rows(
        weighted(lambda m: (m.u + m.v) + (m.w + m.v)), "8 unit, 6 unit", **TWO, u=parameter(6, 8)
    ),
    "between two": on_rows(weighted(lambda m: torch.lerp(m.w, m.v, 0.3)), "8 unit, 6 unit", **TWO),
    "one or the other": on_rows(weighted(lambda m: torch.where(m.w > 0, m.w, m.v)), "8 unit, 6 unit", **TWO),
    "stacked and summed": on_rows(weighted(lambda m: torch.stack([m.w, m.v]).sum(0)), "8 unit, 6 unit", **TWO),
    "rows of two tensors": on_rows(
        weighted(lambda m: torch.cat([m.w, m.v])), "8 unit, 2 unit, 4 unit",
        **AROUND, w=parameter(2, 8), v=parameter(4, 8),
    ),
    "columns of two tensors": on_rows(
        weighted(lambda m: torch.cat([m.w, m.v], 1)), "2 unit, 6 unit, 6 unit",
        **AROUND, w=parameter(6, 2), v=parameter(6, 6),
    ),
    "weight norm": on_images(
        chain, "4 conv, 6 conv",
        a=lambda: weight_norm(nn.Conv2d(3, 4, 1)), b=lambda: weight_norm(nn.Conv2d(4, 6, 3)), c=conv(6, 2),
    ),
    "weight norm of a depthwise convolution": on_images(
        chain, "4 conv", a=conv(3, 4), b=lambda: weight_norm(nn.Conv2d(4, 8, 3, groups=4)), c=conv(8, 2)
    ),
    "weight norm of a transposed convolution": on_images(
        chain, "4 conv, 6 conv", a=conv(3, 4), b=lambda: weight_norm(nn.ConvTranspose2d(4, 6, 2)), c=conv(6, 2)
    ),
    "weight norm over inputs": on_images(
        chain, "4 conv, 6 conv", a=conv(3, 4), b=lambda: weight_norm(nn.Conv2d(4, 6, 3), dim=1), c=conv(6, 2)
    ),
    "weight norm over places, of a grouped convolution": on_images(
        chain, "2 conv, 3 conv",
        a=conv(3, 4), b=lambda: weight_norm(nn.Conv2d(4, 6, 3, groups=2), dim=3), c=conv(6, 2),
    ),
    "weight norm of the whole": on_images(
        chain, "4 conv, 6 conv", a=conv(3, 4), b=lambda: weight_norm(nn.Conv2d(4, 6, 3), dim=None), c=conv(6, 2)
    ),
    "spectral norm": on_rows(
        chain, "4 unit, 6 unit", a=linear(3, 4), b=lambda: spectral_norm(nn.Linear(4, 6)), c=linear(6, 2)
    ),
    "spectral norm of a convolution": on_images(
        chain, "4 conv, 6 conv", a=conv(3, 4), b=lambda: spectral_norm(nn.Conv2d(4, 6, 3)), c=conv(6, 2)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_in_a_small_network(name: str) -> None:
    check_case(WEIGHTS[name])


@pytest.mark.parametrize(("factors", "gated"), [("w v", {"w"}), ("v w", {"v"})])
def test_of_factors_of_a_weight_one_alone_is_gated(factors: str, gated: set[str]) -> None:
    """A gate on both would act twice."""
    one, other = factors.split()
    case = on_rows(weighted(lambda m: getattr(m, one) * getattr(m, other)), "", **TWO)
    model = filled(Net(case.forward, **case.layers()))
    found = discover(model, lambda network: network(*case.inputs))
    group = next(group for group in found.groups if group.units == 8)
    assert {place.tensor for place in group.places if place.role is Role.CONSUMES} == gated


@pytest.mark.filterwarnings("ignore:the gates are at an expected sparsity")
def test_a_network_of_spectral_norms_trains_with_open_gates_as_without() -> None:
    """Its power iteration writes to buffers, which must be the module's own while there are gates."""
    torch.manual_seed(0)
    layers = [nn.Linear(3, 8), nn.ReLU(), spectral_norm(nn.Linear(8, 6)), nn.ReLU(), nn.Linear(6, 2)]
    model, x = nn.Sequential(*layers), torch.randn(4, 3)
    pruner = l0prune.wrap(model, (x,), target_sparsity=0.4)
    before = model[2].parametrizations.weight[0]._u.clone()  # pyright: ignore
    model(x).sum().backward()
    pruner.step()
    assert not torch.equal(before, model[2].parametrizations.weight[0]._u)  # pyright: ignore
    pruned = pruner.finalize()
    pruned(x).sum().backward()
