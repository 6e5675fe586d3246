"""How audio is cut for a streaming encoder, and what its caches hold: all that whoever runs it must know.

Legend: B batch, D residual width, L transformer layers.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from l0prune import ConfigError, DataError
from l0prune_speech.data import SAMPLE_RATE, Framing

UNKNOWN_LENGTH = 2**40
"""Samples of a stream that goes on: two years of audio."""

_DERIVED = ("chunk_samples", "lead_samples")
"""What those need who run a program without this package."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The cut of a stream, and its caches. Every cache begins with zeros."""

    chunk_frames: int
    left_frames: int
    right_frames: int
    shortest_samples: int
    """Of audio that gives a frame."""
    step_samples: int
    """From a frame to the next."""
    width: int
    """D."""
    layers: int
    """L."""
    caches: Mapping[str, tuple[tuple[int, ...], str]]
    """Shape without the batch, and the type, "int64" for example, by name; in the order in which they are given."""

    @property
    def chunk_samples(self) -> int:
        """Samples that a step takes."""
        return self.chunk_frames * self.step_samples

    @property
    def overlap_samples(self) -> int:
        """Samples of the step before that the first frame of a step hears too."""
        return self.shortest_samples - self.step_samples

    @property
    def lead_steps(self) -> int:
        """Steps before the first one that gives frames."""
        return -(-(self.right_frames + 1) // self.chunk_frames)

    @property
    def lead_samples(self) -> int:
        """Zeros that go before the audio, so that each step takes equally many samples."""
        return (self.lead_steps * self.chunk_frames - self.right_frames) * self.step_samples - self.overlap_samples

    @property
    def latency_ms(self) -> float:
        """From the first sample of a chunk to the moment at which it can be computed."""
        frames = self.chunk_frames + self.right_frames
        return 1000 * (frames * self.step_samples + self.overlap_samples) / SAMPLE_RATE

    def frames(self, samples: int) -> int:
        """Frames of a whole stream."""
        return Framing(shortest_samples=self.shortest_samples, step_samples=self.step_samples).frames(samples)

    def empty(self, batch: int, device: torch.device | str = "cpu") -> list[Tensor]:
        """Caches of streams that begin."""
        kinds = [(shape, getattr(torch, kind)) for shape, kind in self.caches.values()]
        return [torch.zeros(batch, *shape, dtype=kind, device=device) for shape, kind in kinds]

    def to_json(self) -> str:
        """One line that goes along with an exported program, with the samples that follow from it."""
        return json.dumps({**asdict(self), **{name: getattr(self, name) for name in _DERIVED}})

    @classmethod
    def from_json(cls, text: str, where: object) -> "Layout":
        """Read what `to_json` wrote.

        Raises:
            DataError: It is something else.
        """
        try:
            content: dict[str, Any] = json.loads(text)
            caches = {name: (tuple(shape), kind) for name, (shape, kind) in content.pop("caches").items()}
            return cls(**{key: value for key, value in content.items() if key not in _DERIVED}, caches=caches)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise DataError("the layout of its chunks is damaged", where=where, got=error) from error


def whole_frames(ms: float, framing: Framing, where: str) -> int:
    """Milliseconds as frames.

    Raises:
        ConfigError: They are no whole number of frames.
    """
    frame = 1000 / framing.per_second
    frames = round(ms / frame)
    if abs(frames * frame - ms) > 1e-6 * frame:
        lower = int(ms // frame)
        near = " or ".join(f"{number * frame:g}" for number in (lower, lower + 1) if number or where != _CHUNK)
        expected = f"a multiple of {frame:g}, the milliseconds of a frame"
        raise ConfigError("not a whole number of frames", where=where, got=f"{ms:g}", expected=expected, hint=near)
    if not frames and where == _CHUNK:
        raise ConfigError("shorter than a frame", where=where, got=f"{ms:g}", expected=f"{frame:g} or more")
    return frames


_CHUNK = "speech.streaming.chunk_ms"
