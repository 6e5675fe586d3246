"""What a streaming encoder is exported as: a program that takes a chunk and its caches, and gives the next caches.

It takes `samples` (B, chunk), `lengths` (B,) and the caches; it gives `last_hidden_state` (B, c, D), `hidden_states`
(1 + L, B, c, D), `frames` (B,), those of the chunk that there are, and each cache again, `next_` before its name. The
batch stays free. The layout goes along as one line of JSON: the samples of a chunk, and each cache with its shape.

Legend: B streams, c frames of a chunk, D residual width, L transformer layers.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from l0prune_speech.encoder import SpeechEncoder
from l0prune_speech.formats.checkpoint import Checkpoint, to_encoder
from l0prune_speech.formats.registry import Outputs, Run
from l0prune_speech.streaming import Layout, Step, Stream, StreamStep

LAYOUT = "l0prune_streaming"
"""The name under which the layout goes along."""


def step_of(checkpoint: Checkpoint) -> StreamStep:
    """The program of a streaming network."""
    return StreamStep(to_encoder(checkpoint, "the network to export"))


def refuses_whole_clips(checkpoint: Checkpoint) -> str | None:
    """Why a network cannot be exported chunk by chunk, if it cannot."""
    if checkpoint.config.get("streaming") is not None:
        return None
    return "it hears whole clips; a network that is compressed with speech.streaming.chunk_ms hears chunks"


def input_names(layout: Layout) -> list[str]:
    """The program's inputs, in order."""
    return ["samples", "lengths", *layout.caches]


def output_names(layout: Layout) -> list[str]:
    """The program's outputs, in order."""
    return ["last_hidden_state", "hidden_states", "frames", *(f"next_{name}" for name in layout.caches)]


def step_shapes(layout: Layout) -> dict[str, Any]:
    """The batch stays free, for torch's exporters."""
    batch = torch.export.Dim.DYNAMIC
    return {"samples": {0: batch}, "lengths": {0: batch}, "caches": tuple({0: batch} for _ in layout.caches)}


def chunk_by_chunk(step: Step) -> Run:
    """A function that hears each clip of a batch chunk by chunk, for the comparison with `in_one_pass`."""

    def run(waveforms: Tensor, lengths: Tensor) -> Outputs:
        found: list[Tensor] = []
        for waveform, length in zip(waveforms, lengths.tolist(), strict=True):
            for every_layer in (False, True):
                stream = Stream(step, every_layer=every_layer)
                # In pieces that are no chunks.
                pieces: Sequence[Tensor] = waveform[:length].split(step.layout.chunk_samples // 2 + 1)
                found.append(torch.cat([*map(stream, pieces), stream.flush()], -2))
        return found

    return run


def in_one_pass(encoder: SpeechEncoder, waveforms: Tensor, lengths: Tensor) -> Outputs:
    """What `chunk_by_chunk` gives, by the encoder itself on whole clips."""
    found: list[Tensor] = []
    for waveform, length in zip(waveforms, lengths.tolist(), strict=True):
        clip = waveform[None, :length]
        found += [encoder(clip)[0], torch.stack(encoder.hidden_states(clip))]
    return found
