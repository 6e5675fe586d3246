"""Distillation terms: what is minimised between a student and its teacher. Each is one registration.

Legend: B clips, T frames, D student width, E teacher width, K units.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from l0prune import ConfigError
from l0prune.support import Registry
from l0prune_speech.distillation import distances
from l0prune_speech.distillation.distances import Distance, over_clips
from l0prune_speech.extensions import load_extensions

Between = Literal["states", "steps", "maps", "value_relations", "means", "units", "masked_units", "logits"]
"""What a term compares. (B, T, ...) each:

- states: a matched layer's hidden states.
- steps: a matched layer's input and output, (B, T, 2, width).
- maps: a matched layer's attention map, averaged over heads, (B, T, T).
- value_relations: the relations of a matched layer's values, averaged over heads, (B, T, T).
- means: the mean of the hidden states of a cluster of layers; the student's is projected.
- units: the student's logits (B, T, K) and the teacher's units (B, T).
- masked_units: the same of frames that were hidden from the student.
- logits: those of a head.
"""


@dataclass(frozen=True, kw_only=True)
class Term:
    """A distance between what a student and its teacher make of a batch, least where both are the same."""

    name: str
    """As in `[speech.terms]`."""
    distance: Distance
    """The student's, the teacher's -> a number. By default hidden states of one layer, (B, T, E). Both are float32 at
    least, but for units."""
    source: str
    """Paper and equation."""
    projected: bool = True
    """Whether a distance of states needs the student's state in the teacher's width (B, T, E), by the objective's
    projections. Otherwise it gets the student's own state (B, T, D)."""
    between: Between = "states"
    """What is compared."""
    framewise: bool = False
    """Whether it is a mean over frames, whatever clips they are of. Otherwise padded clips are compared one by one."""


_TERMS: Registry[str, Term] = Registry("term", unknown="no such term")


def register_term(term: Term, *, replace: bool = False) -> Term:
    """Let `[speech.terms]` give a term a weight.

    Args:
        term: The term.
        replace: Take the place of one of the same name.

    Raises:
        ConfigError: It is no term, has no name, compares what nothing provides, or the name is taken.
    """
    if not isinstance(term, Term):
        raise ConfigError("not a term", got=repr(term), expected="an instance of l0prune_speech.distillation.Term")
    if not term.name:
        raise ConfigError("the term has no name", got=repr(term.name))
    if term.between not in get_args(Between):
        expected = ", ".join(get_args(Between))
        raise ConfigError("nothing of this name is compared", where=term.name, got=term.between, expected=expected)
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


def active(weights: Mapping[str, float]) -> list[Term]:
    """The terms whose weight is above 0."""
    known = all_terms()
    return [known[name] for name, weight in weights.items() if weight]


def check_between(weights: Mapping[str, float], provided: Collection[str], *, hint: str) -> None:
    """Check that what each term of a weight above 0 compares is there.

    Args:
        weights: By term.
        provided: Some of `Between`.
        hint: What to do where it is not.

    Raises:
        ConfigError: It is not.
    """
    for term in active(weights):
        if term.between not in provided:
            what, where = "the term has nothing to compare here", f"speech.terms.{term.name}"
            raise ConfigError(what, where=where, got=f"no {term.between.replace('_', ' ')}", hint=hint)


def distance(
    own: Tensor, projected: Tensor, teacher: Tensor, weights: Mapping[str, float], frames: Tensor | None = None
) -> Tensor:
    """Weighted sum of the terms between hidden states.

    Args:
        own: The student's hidden state (B, T, D).
        projected: The same in the teacher's width (B, T, E).
        teacher: The teacher's (B, T, E).
        weights: By term; see `check_weights`. Terms between other things are left out.
        frames: (B, T), true where a frame is not padding; all by default.
    """
    own, projected, teacher = map(precise, (own, projected, teacher))
    total = teacher.new_zeros(())
    for term in active(weights):
        if term.between == "states":
            found = over_clips(
                term.distance, projected if term.projected else own, teacher, frames, framewise=term.framewise
            )
            total = total + weights[term.name] * found
    return total


def precise(tensor: Tensor) -> Tensor:
    """A tensor in float32 at least; whole numbers as they are."""
    if not tensor.is_floating_point():
        return tensor
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


register_term(
    Term(
        name="l1",
        distance=nn.functional.l1_loss,
        source="DPHuBERT (arXiv 2305.17651), eq. 1: mean absolute difference",
        framewise=True,
    )
)
register_term(
    Term(
        name="l2",
        distance=nn.functional.mse_loss,
        source="DPHuBERT's published code, which offers it beside L1: mean squared difference",
        framewise=True,
    )
)
register_term(
    Term(
        name="cosine",
        distance=distances.cosine,
        source="DPHuBERT (arXiv 2305.17651), eq. 1; 1 - cos instead of -cos, so that 0 is a perfect match",
        framewise=True,
    )
)
register_term(
    Term(
        name="cosine_log_sigmoid",
        distance=distances.cosine_log_sigmoid,
        source="DistilHuBERT (arXiv 2110.01900), eq. 1: -log sigmoid(cos)",
        framewise=True,
    )
)
register_term(
    Term(
        name="gram",
        distance=distances.gram,
        source="STaR (arXiv 2312.09040), layer-wise temporal Gram matrices, here divided by the width of the states",
        projected=False,
    )
)
register_term(
    Term(
        name="gram_step",
        distance=distances.gram_step,
        source="STaR (arXiv 2312.09040), intra-layer temporal Gram matrices: a layer's input with its output, here "
        "divided by the width of the states",
        between="steps",
    )
)
register_term(
    Term(
        name="attention",
        distance=distances.row_divergence,
        source="MiniLM (arXiv 2002.10957), self-attention distributions; here averaged over heads, because heads leave "
        "the student",
        between="maps",
    )
)
register_term(
    Term(
        name="value_relation",
        distance=distances.row_divergence,
        source="MiniLM (arXiv 2002.10957), self-attention value relations; here averaged over heads",
        between="value_relations",
    )
)
register_term(
    Term(
        name="cluster_means",
        distance=distances.l1_and_cosine,
        source="SKILL (arXiv 2402.16830): means of clusters of alike layers, by DPHuBERT's distance",
        between="means",
        framewise=True,
    )
)
register_term(
    Term(
        name="units",
        distance=distances.unit_cross_entropy,
        source="HuBERT (arXiv 2106.07447), eq. 1 over frames that are not masked: units are k-means of the teacher's "
        "layers",
        between="units",
        framewise=True,
    )
)
register_term(
    Term(
        name="masked_units",
        distance=distances.unit_cross_entropy,
        source="HuBERT (arXiv 2106.07447), eq. 1 over masked frames, on the teacher's units as in DiceHuBERT (arXiv "
        "2507.02911)",
        between="masked_units",
        framewise=True,
    )
)
register_term(
    Term(
        name="logits",
        distance=distances.logit_divergence,
        source="Hinton et al. 2015 (arXiv 1503.02531), section 2, at speech.temperature",
        between="logits",
        framewise=True,
    )
)
