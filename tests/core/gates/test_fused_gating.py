"""Gated tensors computed together are those computed one by one, and nothing outlives a pass."""

import copy
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_training import gates_of
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from l0prune import ControllerConfig, GateConfig, L0Pruner, Place, Role, consecutive, wrap
from l0prune.gates.fused_gating import FusedGating
from l0prune.gates.fused_layout import Layout, Standing, scaled


class Residual(nn.Module):
    """Blocks whose norms see a residual width, on vectors."""

    def __init__(self, norm: Callable[[int], nn.Module], width: int = 6, blocks: int = 3) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, width), nn.Linear(width, 3)
        self.norms = nn.ModuleList(norm(width) for _ in range(blocks))
        self.up = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(blocks))
        self.down = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for norm, up, down in zip(self.norms, self.up, self.down, strict=True):
            x = x + down(F.gelu(up(norm(x))))
        return self.last(x)


class Images(nn.Module):
    """Convolutions with batch and group norms, a large weight, a linear layer behind flattened channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.inner, self.outer = nn.Conv2d(8, 160, 1, bias=False), nn.Conv2d(160, 8, 5, padding=2)
        self.grouped, self.final = nn.GroupNorm(2, 8), nn.Conv2d(8, 4, 3)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm(self.stem(x)))
        x = x + self.outer(F.gelu(self.inner(x)))
        return self.head(self.final(F.gelu(self.grouped(x))).flatten(1))


class Tied(nn.Module):
    """One weight in two layers, and one layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.one, self.two, self.last = (nn.Linear(n, m) for n, m in ((4, 6), (6, 6), (6, 6), (6, 3)))
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.first(x))
        return self.last(F.gelu(self.two(F.gelu(self.one(F.gelu(self.one(x)))))))


def mlp(depth: int = 5, width: int = 6) -> nn.Module:
    layers = [part for _ in range(depth) for part in (nn.Linear(width, width), nn.GELU())]
    return nn.Sequential(nn.Linear(4, width), nn.GELU(), *layers, nn.Linear(width, 3))


def attention() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
    return nn.Sequential(nn.Linear(4, 8), encoder, nn.Linear(8, 3))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(5, 3)
        self.middle = nn.LSTM(6, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(F.gelu(self.first(x)))[0])


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "deep and narrow": (mlp, (5, 4)),
    "layer norms": (lambda: Residual(nn.LayerNorm), (5, 4)),
    "RMS norms": (lambda: Residual(nn.RMSNorm), (5, 4)),
    "group norms": (lambda: Residual(lambda width: nn.GroupNorm(2, width)), (5, 4)),
    "images": (Images, (2, 3, 4, 4)),
    "tied weights": (Tied, (5, 4)),
    "attention": (attention, (2, 3, 4)),
    "recurrent": (Recurrent, (2, 3, 4)),
}


def gated(name: str, seed: int = 0, **settings: Any) -> tuple[L0Pruner, Tensor]:
    torch.manual_seed(seed)
    build, shape = NETWORKS[name]
    network = build().double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(shape, dtype=torch.float64)
    return wrap(
        network, x, target_sparsity=0.4, gates=GateConfig(drop_rate=0.4), controller=ControllerConfig(), **settings
    ), x


@contextmanager
def one_by_one() -> Iterator[None]:
    """Every tensor and norm is gated by itself meanwhile."""
    with mock.patch.multiple(FusedGating, weight=lambda *_: None, opened=lambda *_: None):
        yield


def random_values(count: int, seed: int) -> Tensor:
    """Gate values of which some are 0, some 1 and some between, as in a draw."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(count, generator=generator, dtype=torch.float64) * 1.6 - 0.3).clamp(0, 1)


def outputs_and_gradients(pruner: L0Pruner, x: Tensor, values: Tensor) -> list[Tensor]:
    z = values.clone().requires_grad_()
    pruner.model.zero_grad()
    with gates_of(pruner).fixed(z):
        y = pruner.model(x)
        y.pow(2).sum().backward()
    assert z.grad is not None
    return [y.detach(), z.grad, *(p.grad for p in pruner.model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_and_gradients_are_those_of_tensors_gated_one_by_one(name: str, training: bool) -> None:
    pruner, x = gated(name)
    pruner.model.train(training)
    count = len(gates_of(pruner).log_alpha)
    for seed, values in enumerate((None, None, None, torch.ones(count), torch.zeros(count))):
        values = random_values(count, seed) if values is None else values.double()
        together = outputs_and_gradients(pruner, x, values)
        with one_by_one():
            alone = outputs_and_gradients(pruner, x, values)
        assert len(together) == len(alone) > 5
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_step_is_that_of_tensors_gated_one_by_one(name: str) -> None:
    results = []
    for how in (nullcontext, one_by_one):
        pruner, x = gated(name)
        pruner.model.train()
        torch.manual_seed(1)
        with how():
            # Two passes before one backward pass share their gates.
            loss = (pruner.model(x) - 0.5 * pruner.model(2 * x)).pow(2).sum() + pruner.penalty()
            loss.backward()
        results.append([p.grad.clone() for p in pruner.model.parameters() if p.grad is not None])
    assert len(results[0]) == len(results[1]) > 5
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


@st.composite
def standings(draw: st.DrawFn) -> tuple[list[int], list[Standing]]:
    """Groups of a few units, and tensors on which some of them stand."""
    units = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    tensors = []
    for _ in range(draw(st.integers(1, 5))):
        dim = draw(st.integers(0, 2))
        on = draw(st.lists(st.sampled_from(range(len(units))), unique=True, max_size=2))
        width = draw(st.integers(1, 2))
        offset, places = draw(st.integers(0, 2)), []
        for g in on:
            index = consecutive(units[g], width, offset)
            places.append((g, Place(tensor="w", dim=dim, role=Role.CONSUMES, index=index)))
            offset += index.size
        singles = [g for g, count in enumerate(units) if count == 1]
        if singles and draw(st.booleans()):
            whole = Place(tensor="w", dim=None, role=Role.CONSUMES, index=np.zeros((1, 1), int))
            places.append((draw(st.sampled_from(singles)), whole))
        shape = [draw(st.integers(1, 3)) for _ in range(3)]
        shape[dim] = offset + draw(st.integers(0 if offset else 1, 1))
        alive = draw(st.lists(st.sampled_from(range(len(units))), unique=True, max_size=1))
        tensors.append(Standing(tuple(shape), tuple(places), tuple(alive)))
    # Some of one shape, which are stacked.
    return units, tensors + [tensors[0]] * draw(st.integers(0, 2))


def defined(standing: Standing, tensor: Tensor, z: Tensor, units: list[int]) -> Tensor:
    """The tensor times the gates of all its places."""
    parts = z.split(units)
    for g, place in standing.places:
        scale = torch.ones(tensor.shape[place.dim or 0], dtype=z.dtype)
        if place.dim is None:
            tensor = tensor * parts[g]
        else:
            scale = scale.index_put(
                (torch.from_numpy(place.index.copy()),), parts[g][:, None].expand(place.index.shape)
            )
            tensor = tensor * scale.view([-1 if dim == place.dim else 1 for dim in range(3)])
    for g in standing.alive_with:
        tensor = tensor * float((parts[g] > 0).any())
    return tensor


@settings(max_examples=60, deadline=None)
@given(standings(), st.integers(0, 2**31))
def test_any_layout_scales_each_tensor_by_its_gates(drawn: tuple[list[int], list[Standing]], seed: int) -> None:
    units, tensors = drawn
    layout = Layout(units, tensors)
    generator = torch.Generator().manual_seed(seed)
    ws = [torch.randn(t.shape, dtype=torch.float64, generator=generator).requires_grad_() for t in tensors]
    weights = [torch.randn(t.shape, dtype=torch.float64, generator=generator) for t in tensors]
    z = random_values(sum(units), seed).requires_grad_()
    # A tensor that nobody reads gets no gradient.
    read = [n for n in range(len(tensors)) if n != seed % (len(tensors) + 1)]
    parts = layout.scales(z).split([block.scales for block in layout.blocks])
    results: dict[int, Tensor] = {}
    for block, scales in zip(layout.blocks, parts, strict=True):
        results.update(zip(block.numbers, scaled(block, [ws[n] for n in block.numbers], scales), strict=True))
    expected = {n: defined(tensors[n], ws[n], z, units) for n in results}
    for n, result in results.items():
        torch.testing.assert_close(result, expected[n], rtol=1e-13, atol=1e-13)
    inputs = [z, *ws]
    together, alone = (
        torch.autograd.grad(
            sum(((found[n] * weights[n]).sum() for n in read if n in found), z.sum() * 0), inputs, allow_unused=True
        )
        for found in (results, expected)
    )
    for one, other, like in zip(together, alone, inputs, strict=True):
        one, other = (torch.zeros_like(like) if each is None else each for each in (one, other))
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "dim", "count"),
    [((3, 4), 1, 1), ((3, 4), 1, 3), ((4, 3), 0, 2), ((2, 4, 3), 1, 2), ((2, 4, 70), 1, 1), ((4,), 0, 2)],
)
def test_first_and_second_derivatives_agree_with_finite_differences(
    shape: tuple[int, ...], dim: int, count: int
) -> None:
    place = Place(tensor="w", dim=dim, role=Role.CONSUMES, index=consecutive(shape[dim]))
    (block,) = Layout([shape[dim]], [Standing(shape, ((0, place),))] * count).blocks
    generator = torch.Generator().manual_seed(0)
    scales = torch.rand(block.scales, dtype=torch.float64, generator=generator).requires_grad_()
    tensors = [torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(count)]
    assert torch.autograd.gradcheck(lambda s, *ts: scaled(block, ts, s), (scales, *tensors))
    assert torch.autograd.gradgradcheck(lambda s, *ts: scaled(block, ts, s), (scales, *tensors))


def test_a_large_product_is_summed_in_parts() -> None:
    place = Place(tensor="w", dim=1, role=Role.CONSUMES, index=consecutive(300))
    (block,) = Layout([300], [Standing((3000, 300, 1, 1), ((0, place),))]).blocks
    scales = torch.rand(300, dtype=torch.float64, requires_grad=True)
    tensor, grad_of = (torch.randn(3000, 300, 1, 1, dtype=torch.float64) for _ in range(2))
    (found,) = torch.autograd.grad(scaled(block, [tensor], scales)[0], scales, grad_of)
    torch.testing.assert_close(found, (tensor * grad_of).sum((0, 2, 3)), rtol=1e-11, atol=1e-11)


def seen_weights(pruner: L0Pruner, x: Tensor, module: nn.Module) -> list[Tensor]:
    """What a part finds as its weight, each time it is called in a pass."""
    seen: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda part, _: seen.append(part.weight))  # type: ignore[arg-type]
    pruner.model(x)
    handle.remove()
    return seen


def test_a_part_that_runs_twice_in_a_pass_has_one_weight_and_nothing_is_left_behind() -> None:
    pruner, x = gated("tied weights")
    model: Any = pruner.model.train()
    first, second = seen_weights(pruner, x, model.one)
    assert first is second
    gone = weakref.ref(first)
    del first, second
    assert gone() is None


CHANGES: dict[str, Callable[[Any], object]] = {
    "in place": lambda model: model.one.parametrizations.weight.original.detach().mul_(2),
    "past the version": lambda model: model.one.parametrizations.weight.original.data.mul_(2),
    "other data": lambda model: setattr(
        model.one.parametrizations.weight.original, "data", 2 * model.one.parametrizations.weight.original.data
    ),
    "loaded": lambda model: model.load_state_dict(
        {k: 2 * v if k.endswith("one.parametrizations.weight.original") else v for k, v in model.state_dict().items()}
    ),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("change", CHANGES)
def test_weights_that_change_between_passes_are_seen(change: str, training: bool) -> None:
    pruner, x = gated("tied weights")
    model: Any = pruner.model.train(training)
    with gates_of(pruner).fixed(random_values(len(gates_of(pruner).log_alpha), 0)), torch.no_grad():
        before = seen_weights(pruner, x, model.one)[0].clone()
        CHANGES[change](model)
        assert torch.equal(seen_weights(pruner, x, model.one)[0], 2 * before)
        # The same for a part that runs by itself.
        assert torch.equal(model.one.weight, 2 * before)


def test_a_weight_that_changes_in_the_middle_of_a_pass_is_seen() -> None:
    pruner, x = gated("tied weights")
    model: Any = pruner.model.eval()
    original = model.one.parametrizations.weight.original
    seen: list[Tensor] = []

    def grow(part: Any, _: object) -> None:
        seen.append(part.weight.clone())
        original.mul_(2)

    model.one.register_forward_pre_hook(grow)
    with torch.no_grad():
        model(x)
    assert torch.equal(seen[1], 2 * seen[0])


def test_gates_drawn_in_the_middle_of_a_pass_are_those_of_what_follows() -> None:
    pruner, x = gated("tied weights")
    model: Any = pruner.model.train()
    gates = gates_of(pruner)
    handle = model.one.register_forward_pre_hook(lambda *_: gates.sample())
    first, second = seen_weights(pruner, x, model.one)
    handle.remove()
    assert not torch.equal(first, second)


@pytest.mark.parametrize("name", ["deep and narrow", "layer norms", "images", "attention"])
def test_no_tensor_is_gated_alone_in_a_pass(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pruner, x = gated(name)
    monkeypatch.setattr("l0prune.gates.gated_tensors.scale_along", None)
    for training in (True, False):
        pruner.model.train(training)(x).sum().backward()
    with pytest.raises(TypeError, match="not callable"), one_by_one():
        pruner.model(x)


def test_a_pass_that_fails_leaves_nothing_behind() -> None:
    pruner, x = gated("tied weights")
    model: Any = pruner.model.eval()

    def fail(*_: object) -> None:
        raise ValueError("broken")

    handle = model.last.register_forward_pre_hook(fail)
    with pytest.raises(ValueError, match="broken"):
        model(x)
    handle.remove()
    before = model.one.weight.detach().clone()
    model.one.parametrizations.weight.original.data.mul_(2)
    assert torch.equal(model.one.weight, 2 * before)


def test_gradients_switched_off_for_a_part_stay_off() -> None:
    pruner, x = gated("deep and narrow")
    model: Any = pruner.model.train()
    part = model[2].forward

    def frozen(h: Tensor) -> Tensor:
        with torch.no_grad():
            return part(h)

    model[2].forward = frozen
    model(x).sum().backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    assert grads["2.parametrizations.weight.original"] is None
    assert grads["4.parametrizations.weight.original"] is not None


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_part_beside_fused_ones_has_the_same_gradients(reentrant: bool) -> None:
    results = []
    for checkpointed in (False, True):
        pruner, x = gated("layer norms")
        model: Any = pruner.model.train()
        for block in model.up if checkpointed else ():
            block.forward = lambda h, part=block.forward: checkpoint(part, h, use_reentrant=reentrant)
        torch.manual_seed(1)
        model(x).pow(2).sum().backward()
        results.append([p.grad for p in model.parameters() if p.grad is not None])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_function_transforms_see_the_gates() -> None:
    pruner, x = gated("deep and narrow")
    model = pruner.model.eval()
    parameters = {name: p.detach() for name, p in model.named_parameters() if not name.endswith("multipliers")}

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(model, parameters, (x[None],)).pow(2).sum()

    model(x).pow(2).sum().backward()
    per_example = vmap(grad(loss), in_dims=(None, 0))(parameters, x)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(per_example[name].sum(0), parameter.grad, rtol=1e-10, atol=1e-10)


def test_other_parameters_in_a_call_are_those_that_are_gated() -> None:
    pruner, x = gated("layer norms")
    model = pruner.model.eval()
    others = {name: 2 * p.detach() for name, p in model.named_parameters() if name.endswith("original")}
    with one_by_one():
        expected = functional_call(model, others, (x,))
    assert not torch.equal(expected, model(x))
    torch.testing.assert_close(functional_call(model, others, (x,)), expected, rtol=1e-12, atol=1e-12)


def test_weights_behind_another_parametrization_are_gated_too() -> None:
    torch.manual_seed(0)
    network = mlp().double()
    for part in (network[2], network[4]):
        nn.utils.parametrizations.weight_norm(part)
    x = torch.randn(5, 4, dtype=torch.float64)
    pruner = wrap(network, x, target_sparsity=0.4)
    values = random_values(len(gates_of(pruner).log_alpha), 0)
    together = outputs_and_gradients(pruner, x, values)
    with one_by_one():
        alone = outputs_and_gradients(pruner, x, values)
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_a_copy_computes_its_own_weights() -> None:
    pruner, x = gated("layer norms")
    model = pruner.model.eval()
    expected = model(x)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    torch.testing.assert_close(twin(x), expected)


def test_cached_parametrizations_are_one_by_one() -> None:
    pruner, x = gated("deep and narrow")
    model: Any = pruner.model.eval()
    expected = model(x)
    with parametrize.cached():
        torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)
        assert model[2].weight is model[2].weight


def test_other_layouts_and_dtypes_after_gates_were_put_on() -> None:
    pruner, x = gated("images")
    model = pruner.model.eval()
    expected = model(x)
    torch.testing.assert_close(model.to(memory_format=torch.channels_last)(x), expected, rtol=1e-10, atol=1e-10)  # type: ignore[call-overload]
    torch.testing.assert_close(model.float()(x.float()).double(), expected, rtol=1e-3, atol=1e-3)
