"""Centred kernel alignment: what changes it and what does not."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from l0prune_speech.probes.similarity import compare, linear_cka
from torch import Tensor


def states(seed: int, frames: int, width: int) -> Tensor:
    return torch.randn(frames, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_kernels(one: Tensor, other: Tensor) -> float:
    """The definition: normalised inner product of centred frame-by-frame kernels."""
    centre = torch.eye(len(one), dtype=torch.float64) - 1 / len(one)
    k, m = (centre @ x @ x.T @ centre for x in (one.double(), other.double()))
    return float((k * m).sum() / (k.norm() * m.norm()))


@given(st.integers(0, 99), st.integers(3, 12), st.integers(1, 6), st.integers(1, 6))
def test_it_is_the_alignment_of_kernels_and_symmetric(seed: int, frames: int, width: int, other: int) -> None:
    one, two = states(seed, frames, width), states(seed + 100, frames, other)
    assert linear_cka(one, two) == pytest.approx(by_kernels(one, two))
    assert linear_cka(two, one) == pytest.approx(linear_cka(one, two))
    assert -1e-12 <= linear_cka(one, two) <= 1 + 1e-12


@given(st.integers(0, 99), st.floats(0.01, 100), st.floats(-10, 10))
def test_rotation_scale_and_shift_do_not_matter(seed: int, scale: float, shift: float) -> None:
    one, other = states(seed, 20, 5), states(seed + 100, 20, 4)
    rotation = torch.linalg.qr(states(seed + 200, 5, 5)).Q
    assert linear_cka(scale * one @ rotation + shift, other) == pytest.approx(linear_cka(one, other))
    assert linear_cka(scale * one @ rotation + shift, one) == pytest.approx(1)


def test_other_linear_maps_do_matter() -> None:
    one = states(0, 200, 5)
    assert linear_cka(one * torch.tensor([10.0, 1, 1, 1, 1]), one) < 0.9


def test_constant_states_agree_with_nothing() -> None:
    assert linear_cka(torch.ones(9, 3), states(0, 9, 3)) == 0


def test_measures_of_a_layer_with_itself_its_opposite_and_another_width() -> None:
    one = states(0, 30, 4).half()
    same = compare(one, one)
    assert (same.cka, same.cosine, same.l1) == (pytest.approx(1), pytest.approx(1), 0)
    opposite = compare(-one, one)
    assert opposite.cosine == pytest.approx(-1)
    assert opposite.l1 == pytest.approx(2 * float(one.double().abs().mean()))
    wider = compare(states(1, 30, 6), one)
    assert (wider.cosine, wider.l1) == (None, None)
    assert 0 < wider.cka < 1
