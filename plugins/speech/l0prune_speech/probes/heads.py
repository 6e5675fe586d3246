"""What is trained on a frozen encoder. Legend: N clips or frames, S hidden states (1 + layers), D width."""

import torch
from torch import Tensor, nn


class WeightedSum(nn.Module):
    """A learned average of hidden states: softmax weights, the same for all frames (SUPERB, section 3).

    Args:
        states: S.
    """

    def __init__(self, states: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(states))

    @property
    def weights(self) -> Tensor:
        """Of each hidden state, (S,); they add up to 1."""
        return self.logits.softmax(0)

    def forward(self, states: Tensor) -> Tensor:
        """(S, N, D) -> (N, D)."""
        return (self.weights @ states.flatten(1)).view(states.shape[1:])


class LinearProbe(nn.Module):
    """Weighted sum and one linear layer. On means over time it is SUPERB's head for whole clips, for both are linear.

    Args:
        states: S.
        width: D.
        classes: Outputs.
    """

    def __init__(self, states: int, width: int, classes: int) -> None:
        super().__init__()
        self.sum = WeightedSum(states)
        self.linear = nn.Linear(width, classes)

    def forward(self, states: Tensor) -> Tensor:
        """(S, N, D) -> (N, classes)."""
        return self.linear(self.sum(states))


class FrameProbe(nn.Module):
    """Weighted sum and one linear layer for CTC, whose blank (symbol 0) has one learned logit for all frames.

    As only differences of logits count, a layer of blank's own would add nothing that can be said. But it can be led
    astray: in the first steps blank is the best answer nearly everywhere, and from some seeds it became the symbol of
    the inner frames of vowels. Those were left with their first frames then, and never had others.

    Args:
        states: S.
        width: D.
        phones: Symbols beside blank.
    """

    def __init__(self, states: int, width: int, phones: int) -> None:
        super().__init__()
        self.phones = LinearProbe(states, width, phones)
        self.blank = nn.Parameter(torch.zeros(1))

    @property
    def weights(self) -> Tensor:
        """Of each hidden state, (S,); they add up to 1."""
        return self.phones.sum.weights

    def forward(self, states: Tensor) -> Tensor:
        """(S, N, D) -> (N, 1 + phones)."""
        phones = self.phones(states)
        return torch.cat([self.blank.expand(len(phones), 1), phones], dim=1)


class SpeakerProbe(nn.Module):
    """Weighted sum, a linear embedding, and an additive-margin softmax over the speakers of the training set.

    Args:
        states: S.
        width: D.
        speakers: Of the training set.

    Source: Wang et al. 2018 (arXiv 1801.05599) with SUPERB's scale 30 and margin 0.4.
    """

    EMBEDDING, SCALE, MARGIN = 128, 30.0, 0.4

    def __init__(self, states: int, width: int, speakers: int) -> None:
        super().__init__()
        self.sum = WeightedSum(states)
        self.linear = nn.Linear(width, self.EMBEDDING)
        self.speakers = nn.Parameter(torch.empty(speakers, self.EMBEDDING))
        nn.init.xavier_normal_(self.speakers)

    def embed(self, states: Tensor) -> Tensor:
        """Means over time (S, N, D) -> embeddings of length 1 (N, 128)."""
        return nn.functional.normalize(self.linear(self.sum(states)), dim=-1)

    def forward(self, states: Tensor, labels: Tensor) -> Tensor:
        """Means over time (S, N, D) and speakers (N,) -> the loss."""
        cosines = self.embed(states) @ nn.functional.normalize(self.speakers, dim=-1).T
        margin = self.MARGIN * nn.functional.one_hot(labels, len(self.speakers))
        return nn.functional.cross_entropy(self.SCALE * (cosines - margin), labels)
