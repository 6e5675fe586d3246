"""What a streaming encoder sees: chunks of frames, what went before them and a little of what follows.

A chunk and its right context are computed together, and the right context again with the next chunk. So the network
looks no further ahead than that, however deep it is (Emformer, arXiv 2010.10759, section 2.2). The file stands alone:
its text goes along where an instance is pickled.

Legend: B batch, T frames, M chunks, R frames of a chunk with its right context, S = M R, C channels.
"""

import torch
from torch import Tensor, nn


class Chunks:
    """The frames that a frame sees in every layer.

    Args:
        size: Frames of a chunk.
        left: Frames before the chunk that its frames attend to.
        right: Frames after it that its frames attend to.
    """

    def __init__(self, size: int, left: int, right: int) -> None:
        self.size, self.left, self.right = size, left, right

    def places(self, frames: int, before: int, device: torch.device) -> Tensor:
        """The frames (M, before + R) of every chunk, `before` more of them at its left. Some are below 0 or above T."""
        # An exporter takes a single chunk for the only number that there is; with an empty one it is never single.
        count = (frames + self.size - 1) // self.size + int(torch.compiler.is_compiling())
        first = self.size * torch.arange(count, device=device)
        return first[:, None] + torch.arange(-before, self.size + self.right, device=device)

    def gathered(self, x: Tensor, places: Tensor) -> Tensor:
        """x: (B, T, D), places: (M, n) -> (B, M, n, D); zero where there is no frame."""
        frames = x.shape[1]
        there = (places >= 0) & (places < frames)
        return x[:, places.clamp(0, frames - 1)] * there[..., None].to(x.dtype)

    def mask(self, places: Tensor, frames: int) -> Tensor:
        """places: (M, R) -> (S, S), true where a query, the row, attends to a key, the column."""
        place = places.flatten()
        chunk = torch.arange(places.shape[0], device=place.device).repeat_interleave(self.size + self.right)
        own = chunk[:, None] == chunk
        first = self.size * chunk
        # Of another chunk each frame is seen once, as the chunk itself computes it and not as the right context before.
        is_own = place < first + self.size
        before = is_own & (place < first[:, None]) & (place >= first[:, None] - self.left)
        return (own | before) & (place < frames)

    def joined(self, x: Tensor, frames: int) -> Tensor:
        """x: (B, S, D) -> (B, T, D), without the right contexts."""
        return x.unflatten(1, (-1, self.size + self.right))[:, :, : self.size].flatten(1, 2)[:, :frames]


class RunningLevel:
    """Gives audio zero mean and unit variance by what was heard so far, in place of the whole clip's.

    Before anything was heard, it counts as a second of silence-free audio of the training data's variance.

    Args:
        variance: Of the training data.
    """

    PRIOR = 16_000
    """Samples that the training data's variance counts as."""

    def __init__(self, variance: float) -> None:
        self.variance = variance

    def __call__(
        self, samples: Tensor, before: Tensor | None = None, index: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Normalise each sample by itself and those before it.

        Args:
            samples: (B, n).
            before: (B, 2), the sum of all earlier samples and that of their squares, float64; 0 by default.
            index: (B, n), the number of each sample; from 0 on by default. Those below 0 are not heard.

        Returns:
            (B, n), and the sums (B, 2) with these samples.
        """
        x = samples.double()
        if index is None:
            index = torch.arange(samples.shape[1], device=samples.device)[None]
        sums = torch.stack([x, x * x], 1).cumsum(-1)
        sums = sums if before is None else sums + before[..., None]
        count = self.PRIOR + (index + 1).clamp_min(0).double()
        mean = sums[:, 0] / count
        variance = (self.PRIOR * self.variance + sums[:, 1]) / count - mean * mean
        return ((x - mean) * torch.rsqrt(variance.clamp_min(0) + 1e-5)).to(samples.dtype), sums[..., -1]


class ChannelAffine(nn.Module):
    """A factor and a shift for each channel, in place of a norm whose statistics are those of a whole clip.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, T) -> (B, C, T)."""
        return x * self.weight[:, None] + self.bias[:, None]
