"""Tensors of any layout are scaled together as each would be alone, and so are their derivatives."""

import numpy as np
import pytest
import torch
from gated_networks import random_values
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from l0prune import Place, Role, consecutive
from l0prune.gates.fused_layout import Layout, Standing, scaled


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


@settings(max_examples=30, deadline=None)
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
