"""What students are trained on: distances from the dense encoder's states, and the recogniser's own loss.

Legend: B windows, T frames, D width.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from l0bench.recognition.kept_states import Windows
from l0bench.recognition.recogniser import Recogniser

OBJECTIVES = ("task", "tokens", "last", "all")
"""The last layer and half of the recogniser's own loss; also what the decoder expects at each token, with the dense
encoder; the last layer alone, which is all that the decoder reads; all layers."""
TASK_WEIGHT, TOKEN_WEIGHT = 0.5, 1.0


class Loss(NamedTuple):
    """A loss and its parts."""

    total: Tensor
    distance: Tensor
    """Distillation alone."""
    task: Tensor | None
    """Nats a token."""


def distance(state: Tensor, target: Tensor) -> Tensor:
    """L1 distance relative to the target's mean magnitude, minus the log-sigmoid of the cosine.

    It is 0.313 for equal states, (B, T, D) each.

    Source: DistilHuBERT (arXiv 2110.01900), whose L1 distance is not relative.
    """
    apart = (state - target).abs().mean() / target.abs().mean()
    return apart - F.logsigmoid(F.cosine_similarity(state, target, dim=-1)).mean()


def divergence(logits: Tensor, expected: Tensor) -> Tensor:
    """KL divergence in nats a token, of (N, V) logits from others.

    Source: Hinton et al. 2015 (arXiv 1503.02531), section 2, at temperature 1.
    """
    ours, theirs = F.log_softmax(logits, dim=-1), F.log_softmax(expected, dim=-1)
    return F.kl_div(ours, theirs, log_target=True, reduction="batchmean")


class Objective:
    """The loss of an encoder on windows, by one of `OBJECTIVES`.

    Args:
        kind: Which.
        recogniser: Its decoder is the one that is listening.
    """

    def __init__(self, kind: str, recogniser: Recogniser) -> None:
        self.kind, self._recogniser = kind, recogniser

    def __call__(self, encoder: nn.Module, windows: Windows, chosen: Sequence[int]) -> Loss:
        """The loss on some of the windows, float32 scalars."""
        output: Any = encoder(windows.features(chosen), output_hidden_states=self.kind == "all")
        states = [output.last_hidden_state] if self.kind != "all" else output.hidden_states
        targets = windows.states(chosen, last_only=self.kind != "all")
        pairs = zip(states, targets, strict=True)
        apart = sum((distance(state.float(), target) for state, target in pairs), start=targets[0].new_zeros(()))
        apart = apart / len(targets)
        if self.kind in ("last", "all"):
            return Loss(apart, apart, None)
        said = [windows.tokens[i] for i in chosen]
        logits, tokens, _ = self._recogniser.logits(states[-1], said)
        task = F.cross_entropy(logits, tokens)
        total = apart + TASK_WEIGHT * task
        if self.kind == "tokens":
            with torch.no_grad():
                expected, _, _ = self._recogniser.logits(targets[-1].to(states[-1].dtype), said)
            total = total + TOKEN_WEIGHT * divergence(logits, expected)
        return Loss(total, apart, task)
