"""Distillation terms: distances between hidden states of a student and of its teacher. Each is one registration.

Legend: B batch, T frames, D student width, E teacher width.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from l0prune import ConfigError
from l0prune.support import Registry
from l0prune_speech.extensions import load_extensions


@dataclass(frozen=True, kw_only=True)
class Term:
    """A distance between two hidden states of one layer, least where they are the same."""

    name: str
    """As in `[speech.terms]`."""
    distance: Callable[[Tensor, Tensor], Tensor]
    """Student's state, teacher's state (B, T, E) -> a number. Both are float32 at least."""
    source: str
    """Paper and equation."""
    projected: bool = True
    """Whether it needs the student's state in the teacher's width (B, T, E), by the objective's projections. Otherwise
    it gets the student's own state (B, T, D)."""


_TERMS: Registry[str, Term] = Registry("term", unknown="no such term")


def register_term(term: Term, *, replace: bool = False) -> Term:
    """Let `[speech.terms]` give a term a weight.

    Args:
        term: The term.
        replace: Take the place of one of the same name.

    Raises:
        ConfigError: It is no term, has no name, or the name is taken.
    """
    if not isinstance(term, Term):
        raise ConfigError("not a term", got=repr(term), expected="an instance of l0prune_speech.distillation.Term")
    if not term.name:
        raise ConfigError("the term has no name", got=repr(term.name))
    return _TERMS.register(term.name, term, replace=replace)


def all_terms() -> Mapping[str, Term]:
    """Every term by name."""
    load_extensions()
    return _TERMS


def check_weights(weights: Mapping[str, float]) -> None:
    """Check weights by term.

    Raises:
        ConfigError: A term does not exist, a weight is negative or not finite, or none is positive.
    """
    load_extensions()
    for name, weight in weights.items():
        _TERMS.named(name, where=f"speech.terms.{name}", got=None, expected=None)
        if not 0 <= weight < torch.inf:
            raise ConfigError("weight out of range", where=f"speech.terms.{name}", got=weight, expected="0 or more")
    if not any(weights.values()):
        raise ConfigError("nothing to minimise", got="weights of 0", expected="one term above 0")


def distance(own: Tensor, projected: Tensor, teacher: Tensor, weights: Mapping[str, float]) -> Tensor:
    """Weighted sum of terms.

    Args:
        own: The student's hidden state (B, T, D).
        projected: The same in the teacher's width (B, T, E).
        teacher: The teacher's (B, T, E).
        weights: By term; see `check_weights`.
    """
    # In float32 at least.
    own, projected, teacher = (
        state.to(torch.promote_types(state.dtype, torch.float32)) for state in (own, projected, teacher)
    )
    total, known = teacher.new_zeros(()), all_terms()
    for name, weight in weights.items():
        if weight:
            term = known[name]
            total = total + weight * term.distance(projected if term.projected else own, teacher)
    return total


def _cosine(student: Tensor, teacher: Tensor) -> Tensor:
    return (1 - nn.functional.cosine_similarity(student, teacher, dim=-1)).mean()


def _cosine_log_sigmoid(student: Tensor, teacher: Tensor) -> Tensor:
    return -nn.functional.logsigmoid(nn.functional.cosine_similarity(student, teacher, dim=-1)).mean()


def _gram(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of temporal Gram matrices (B, T, T), each divided by the width of its states."""
    one, other = (state @ state.transpose(1, 2) / state.shape[-1] for state in (student, teacher))
    return nn.functional.mse_loss(one, other)


register_term(
    Term(
        name="l1",
        distance=nn.functional.l1_loss,
        source="DPHuBERT (arXiv 2305.17651), eq. 1: mean absolute difference",
    )
)
register_term(
    Term(
        name="l2",
        distance=nn.functional.mse_loss,
        source="DPHuBERT's published code, which offers it beside L1: mean squared difference",
    )
)
register_term(
    Term(
        name="cosine",
        distance=_cosine,
        source="DPHuBERT (arXiv 2305.17651), eq. 1; 1 - cos instead of -cos, so that 0 is a perfect match",
    )
)
register_term(
    Term(
        name="cosine_log_sigmoid",
        distance=_cosine_log_sigmoid,
        source="DistilHuBERT (arXiv 2110.01900), eq. 1: -log sigmoid(cos)",
    )
)
register_term(
    Term(
        name="gram",
        distance=_gram,
        source="STaR (arXiv 2312.09040), layer-wise temporal Gram matrices, here divided by the width of the states",
        projected=False,
    )
)
