"""Formulas of the distillation terms, as plain functions of tensors.

Legend: B clips, T frames, D student width, E teacher width, K units, V classes.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Distance = Callable[[Tensor, Tensor], Tensor]


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """One minus the cosine of each two frames (B, T, E), averaged."""
    return (1 - F.cosine_similarity(student, teacher, dim=-1)).mean()


def cosine_log_sigmoid(student: Tensor, teacher: Tensor) -> Tensor:
    """-log sigmoid(cos) of each two frames (B, T, E), averaged."""
    return -F.logsigmoid(F.cosine_similarity(student, teacher, dim=-1)).mean()


def l1_and_cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """The published distance: mean absolute difference plus one minus the mean cosine, (B, T, E)."""
    return F.l1_loss(student, teacher) + cosine(student, teacher)


def gram(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of temporal Gram matrices (B, T, T), each divided by the width of its states.

    Args:
        student: Hidden states (B, T, D).
        teacher: Hidden states (B, T, E).
    """
    one, other = (state @ state.transpose(1, 2) / state.shape[-1] for state in (student, teacher))
    return F.mse_loss(one, other)


def gram_step(student: Tensor, teacher: Tensor) -> Tensor:
    """As `gram`, of a layer's input with its output.

    Args:
        student: (B, T, 2, D), a layer's input and its output.
        teacher: (B, T, 2, E).
    """
    one, other = (pair[:, :, 0] @ pair[:, :, 1].transpose(1, 2) / pair.shape[-1] for pair in (student, teacher))
    return F.mse_loss(one, other)


def row_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL divergence in nats of the student's distributions over keys from the teacher's, averaged over queries.

    Args:
        student: Probabilities (B, T, keys); rows sum to 1.
        teacher: The same of the teacher. A key of probability 0 there (padding) does not count.
    """
    logs = student.clamp_min(torch.finfo(student.dtype).tiny).log()
    return (torch.special.xlogy(teacher, teacher) - teacher * logs).sum(-1).mean()


def unit_cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy in nats, averaged over frames.

    Args:
        student: Logits of units (B, T, K).
        teacher: The unit of each frame (B, T), whole numbers.
    """
    return F.cross_entropy(student.flatten(0, -2), teacher.flatten())


def logit_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL divergence in nats of the classes that logits (..., V) stand for, averaged over all but the last dimension."""
    one, other = (F.log_softmax(logits.flatten(0, -2), dim=-1) for logits in (student, teacher))
    return F.kl_div(one, other, log_target=True, reduction="batchmean")


def over_clips(
    distance: Distance, student: Tensor, teacher: Tensor, frames: Tensor | None, *, framewise: bool = False
) -> Tensor:
    """A distance over the frames that are not padding: that of each clip alone, averaged with its frames as weights.

    Args:
        distance: Of two tensors (clips, frames, ...).
        student: (B, T, ...).
        teacher: (B, T, ...).
        frames: (B, T), true where a frame is not padding, which is at the end; None where there is no padding.
        framewise: The distance is a mean over frames that knows no clips: one call does for all.
    """
    if frames is None or bool(frames.all()):
        return distance(student, teacher)
    if framewise:
        return distance(student[frames][None], teacher[frames][None])
    counts: list[int] = frames.sum(1).tolist()
    heard = [
        distance(student[clip : clip + 1, :count], teacher[clip : clip + 1, :count]) * count
        for clip, count in enumerate(counts)
        if count
    ]
    return torch.stack(heard).sum() / sum(counts)
