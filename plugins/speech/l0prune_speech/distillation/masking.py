"""Spans of frames that are hidden from the student, for masked prediction, and the clips that have them.

Source: HuBERT (arXiv 2106.07447), section III-A, after wav2vec 2.0: 8 % of frames begin spans of 10; spans may overlap.

Legend: B clips, T frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, kw_only=True)
class Hiding:
    """Which clips of a batch the student hears, and which of them with hidden frames."""

    rows: Tensor | None
    """(N,) the clip of each row of the student's batch; None for each clip once."""
    whole: Tensor
    """Rows that are heard whole."""
    of_whole: Tensor
    """The clips of these."""
    masked: Tensor
    """Rows with hidden frames."""
    of_masked: Tensor
    """The clips of these."""
    frames: Tensor
    """(rows with hidden frames, T), true where one is hidden."""
    everywhere: Tensor
    """(N, T), likewise for all rows."""

    @classmethod
    def drawn(
        cls, counts: Sequence[int], frames: int, *, probability: float, length: int, share: float | None, training: bool
    ) -> "Hiding":
        """Draw clips and spans.

        While training, each of two or more clips is heard once, with hidden frames or whole. A single clip is heard
        both ways, and so are all in evaluation, with spans that are always the same.

        Args:
            counts: Frames of each clip that are not padding.
            frames: T.
            probability: That a span begins at a frame.
            length: Frames of a span.
            share: Of the clips that have hidden frames; None for all, none of which is heard whole.
            training: Draw from torch's own generator.
        """
        clips, everyone, rows = len(counts), torch.arange(len(counts)), None
        if share is None:
            masked = of_masked = everyone
            whole = of_whole = everyone[:0]
        elif training and clips > 1:
            # Rounded up or down by chance, so that the mean is as asked for.
            count = min(max(int(share * clips + float(torch.rand(()))), 1), clips - 1)
            order = torch.randperm(clips)
            masked = of_masked = order[:count].sort().values
            whole = of_whole = order[count:].sort().values
        else:
            whole, masked, rows = everyone, clips + everyone, torch.cat([everyone, everyone])
            of_whole = of_masked = everyone
        spans = masked_spans(
            [counts[clip] for clip in of_masked.tolist()],
            frames,
            probability=probability,
            length=length,
            generator=None if training else torch.Generator().manual_seed(0),
        )
        everywhere = torch.zeros(clips if rows is None else len(rows), frames, dtype=torch.bool)
        everywhere[masked] = spans
        return cls(
            rows=rows,
            whole=whole,
            of_whole=of_whole,
            masked=masked,
            of_masked=of_masked,
            frames=spans,
            everywhere=everywhere,
        )

    def to(self, device: torch.device) -> "Hiding":
        """The same on a device."""
        return Hiding(
            rows=None if self.rows is None else self.rows.to(device),
            whole=self.whole.to(device),
            of_whole=self.of_whole.to(device),
            masked=self.masked.to(device),
            of_masked=self.of_masked.to(device),
            frames=self.frames.to(device),
            everywhere=self.everywhere.to(device),
        )
