"""Spans of frames that are hidden from the student, for masked prediction.

Source: HuBERT (arXiv 2106.07447), section III-A, after wav2vec 2.0: 8 % of frames begin spans of 10; spans may overlap.

Legend: B clips, T frames.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def masked_spans(
    counts: Sequence[int], frames: int, *, probability: float, length: int, generator: torch.Generator | None = None
) -> Tensor:
    """Draw spans; every clip has one at least, and keeps a frame at least where it has two.

    Args:
        counts: Frames of each of B clips that are not padding.
        frames: T, those of the longest.
        probability: That a span begins at a frame.
        length: Frames of a span; at most half of a short clip.
        generator: Of random numbers; torch's own by default.

    Returns:
        (B, T), true where a frame is hidden; on the CPU.
    """
    hidden = torch.zeros(len(counts), frames, dtype=torch.bool)
    for row, count in zip(hidden, counts, strict=True):
        span = max(1, min(length, count // 2))
        places = count - span + 1
        # Rounded up or down by chance, so that the mean is as asked for.
        wanted = int(probability * count + float(torch.rand((), generator=generator)))
        begins = torch.randperm(places, generator=generator)[: max(1, wanted)]
        row[(begins[:, None] + torch.arange(span)).flatten()] = True
        if count > 1 and bool(row[:count].all()):
            row[int(torch.randint(count, (), generator=generator))] = False
    return hidden
