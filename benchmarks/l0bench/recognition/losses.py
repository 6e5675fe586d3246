"""What students are trained on: distances from the dense encoder's states, and the recogniser's own loss.

Legend: B windows, T frames, D width.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from l0bench.recognition.kept_states import Windows
from l0bench.recognition.recogniser import Recogniser

OBJECTIVES = ("task", "last", "all")
"""The last layer and half of the recogniser's own loss; the last layer, which is all that the decoder reads; all."""
TASK_WEIGHT = 0.5


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
        if self.kind != "task":
            return Loss(apart, apart, None)
        sums, counts = self._recogniser.nats(states[-1], [windows.tokens[i] for i in chosen])
        task = sums.sum() / counts.sum()
        return Loss(apart + TASK_WEIGHT * task, apart, task)
