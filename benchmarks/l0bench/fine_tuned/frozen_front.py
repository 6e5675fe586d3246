"""A convolutional front that is not trained: what it makes of each clip is computed once."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class FrozenFront(nn.Module):
    """Gives the kept features of the clips that `batch` names, whatever it is called with.

    The front is more than half of a step of a small network. Each clip goes through it alone, as when it is scored:
    its norm looks at the whole clip, and padding would change it.

    Args:
        front: Waveforms (B, S) -> features (B, D, T).
        clips: Waveforms (1, S), as the network is given them.
    """

    batch: Sequence[int] = ()
    """Numbers of clips."""

    @torch.no_grad()
    def __init__(self, front: nn.Module, clips: Sequence[Tensor]) -> None:
        super().__init__()
        self._features = [front(clip)[0] for clip in clips]

    def forward(self, _samples: Tensor) -> Tensor:
        """Features (B, D, T) of the batch, with zeros after the end of a clip."""
        found = [self._features[number].T for number in self.batch]
        return nn.utils.rnn.pad_sequence(found, batch_first=True).transpose(1, 2)
