"""How much alike two representations of the same audio are. Legend: N frames, D and E widths."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """One layer against one of the teacher's."""

    cka: float
    """Linear centred kernel alignment, 0 to 1; needs no common width."""
    cosine: float | None
    """Mean cosine of the frames; None where the widths differ."""
    l1: float | None
    """Mean absolute difference; None where the widths differ."""


def compare(states: Tensor, teacher: Tensor) -> Similarity:
    """Compare a layer with one of the teacher's.

    Args:
        states: (N, D).
        teacher: (N, E), the same frames.
    """
    if states.shape != teacher.shape:
        return Similarity(cka=linear_cka(states, teacher), cosine=None, l1=None)
    cosine = torch.cosine_similarity(states.double(), teacher.double(), dim=1).mean()
    l1 = (states.double() - teacher.double()).abs().mean()
    return Similarity(cka=linear_cka(states, teacher), cosine=float(cosine), l1=float(l1))


def linear_cka(one: Tensor, other: Tensor) -> float:
    """Linear centred kernel alignment: 1 for representations that agree up to rotation, shift and scale.

    Args:
        one: (N, D).
        other: (N, E), the same frames.

    Source: Kornblith et al. 2019 (arXiv 1905.00414), equation 3 with linear kernels, in its form by covariances.
    """
    x, y = (states.double() - states.double().mean(0) for states in (one, other))
    scale = torch.linalg.matrix_norm(x.T @ x) * torch.linalg.matrix_norm(y.T @ y)
    # A layer that says the same at every frame agrees with nothing.
    return float((y.T @ x).square().sum() / scale) if scale > 0 else 0.0
