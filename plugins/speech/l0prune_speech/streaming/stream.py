"""Audio in pieces of any length through a streaming encoder, or through a program that was exported of one.

Legend: B streams, D residual width, L transformer layers.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from l0prune import DataError
from l0prune_speech.encoder import SpeechEncoder
from l0prune_speech.streaming.layout import UNKNOWN_LENGTH, Layout
from l0prune_speech.streaming.step import StreamStep


class Step(Protocol):
    """What computes a chunk: a `StreamStep`, or a program that was exported of one."""

    layout: Layout

    def __call__(self, samples: Tensor, lengths: Tensor, *caches: Tensor) -> Sequence[Tensor]:
        """See `StreamStep.forward`."""
        ...


class Stream:
    """Streams that begin, go on and end together. It keeps the audio that is not yet a chunk, and the caches.

    Args:
        step: Computes a chunk.
        batch: B.
        every_layer: Give all hidden states instead of the last one.
        device: Where the step computes; audio comes from anywhere.
    """

    def __init__(
        self, step: Step, *, batch: int = 1, every_layer: bool = False, device: torch.device | str = "cpu"
    ) -> None:
        self.step, self.batch, self.every_layer, self.device = step, batch, every_layer, device
        self.layout = step.layout
        self.begin()

    def begin(self) -> None:
        """Forget what was heard."""
        self._caches = self.layout.empty(self.batch, self.device)
        self._waiting = torch.zeros(self.batch, self.layout.lead_samples, device=self.device)
        self._heard = 0

    def __call__(self, samples: Tensor) -> Tensor:
        """Take the next audio.

        Args:
            samples: (B, n) at 16 kHz, or (n,) of a single stream; n may be anything.

        Returns:
            The frames that are known now: (B, T, D), T a multiple of the chunk's frames and 0 where no chunk is whole;
            or (1 + L, B, T, D) where `every_layer` is asked for.

        Raises:
            DataError: The audio is of another shape or type.
        """
        samples = samples[None] if samples.ndim == 1 else samples
        if samples.ndim != 2 or samples.shape[0] != self.batch:
            expected = f"({self.batch}, samples)"
            raise DataError("audio of a wrong shape", got=tuple(samples.shape), expected=expected)
        if not samples.is_floating_point():
            got = str(samples.dtype).removeprefix("torch.")
            raise DataError("audio is no floating-point numbers", got=got, expected="float32 between -1 and 1")
        self._heard += samples.shape[1]
        self._waiting = torch.cat([self._waiting, samples.to(self._waiting)], 1)
        return self._run(UNKNOWN_LENGTH)

    def flush(self) -> Tensor:
        """The frames that are left at the end, of the same shape as before. Then another stream may begin.

        Raises:
            DataError: All that was heard is shorter than a frame.
        """
        layout, heard = self.layout, self._heard
        frames = layout.frames(heard)
        if not frames:
            self.begin()
            expected = f"{layout.shortest_samples} samples or more"
            raise DataError("the stream is shorter than a frame", got=f"{heard} samples", expected=expected)
        steps = layout.lead_steps - (-frames // layout.chunk_frames)
        missing = steps * layout.chunk_samples - layout.lead_samples - heard
        # What follows the last frame is cut off.
        self._waiting = torch.nn.functional.pad(self._waiting, (0, missing))
        found = self._run(heard)
        self.begin()
        return found

    @torch.inference_mode()
    def _run(self, length: int) -> Tensor:
        """Every chunk that is whole."""
        count = self.layout.chunk_samples
        lengths = torch.full((self.batch,), length, device=self.device)
        states = (1 + self.layout.layers,) if self.every_layer else ()
        found = [torch.zeros(*states, self.batch, 0, self.layout.width, device=self.device)]
        while self._waiting.shape[1] >= count:
            samples, self._waiting = self._waiting[:, :count], self._waiting[:, count:]
            last, states, frames, *self._caches = self.step(samples.contiguous(), lengths, *self._caches)
            found.append((states if self.every_layer else last)[..., : int(frames[0]), :])
        return torch.cat(found, -2)


def streaming(encoder: SpeechEncoder, *, batch: int = 1, every_layer: bool = False) -> Stream:
    """Run a streaming encoder on audio in pieces.

    Args:
        encoder: A streaming encoder, dense or pruned; it is copied.
        batch: Streams that go on together.
        every_layer: Give all hidden states instead of the last one.

    Raises:
        ConfigError: The encoder hears whole clips.
    """
    device = next(encoder.parameters()).device
    return Stream(StreamStep(encoder), batch=batch, every_layer=every_layer, device=device)
