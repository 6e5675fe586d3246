"""What a network and its export are compared on: clips of noise, of several lengths."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from l0prune import relative_difference
from l0prune_speech.data import SAMPLE_RATE
from l0prune_speech.families import Answer, Heard, Inputs, SpeechNetwork, tokens_of

_CLIPS = ((1.3, 1.0), (0.7,))
"""Seconds of each clip of each batch."""


def batches(
    network: SpeechNetwork, speech: Sequence[Tensor] | None = None
) -> Iterator[tuple[dict[str, Tensor], list[Answer] | None, float]]:
    """Inputs of a network, what its decoder is told, and the seconds of the longest clip.

    Without a window and a mask, a decoder cannot tell padding from sound: then clips of a batch are of one length.

    Args:
        network: Whose inputs they are.
        speech: Clips (samples,) in place of noise, each a batch of its own.
    """
    generator = torch.Generator().manual_seed(1)
    for clip in speech or ():
        most = min(network.window_seconds or math.inf, network.longest_seconds or math.inf, len(clip) / SAMPLE_RATE)
        yield network.inputs([clip[: round(most * SAMPLE_RATE)]]), _answers(network, 1, most, generator), most
    for lengths in _CLIPS if speech is None else ():
        most = min(network.window_seconds or max(lengths), max(lengths))
        seconds = [min(length, most) for length in lengths]
        if network.task == "seq2seq" and network.window_seconds is None:
            seconds = [most] * len(seconds)
        clips = [0.1 * torch.randn(round(one * SAMPLE_RATE), generator=generator) for one in seconds]
        yield network.inputs(clips), _answers(network, len(clips), most, generator), most


def _answers(network: SpeechNetwork, clips: int, seconds: float, generator: torch.Generator) -> list[Answer] | None:
    """Tokens that a decoder is told."""
    if network.task != "seq2seq":
        return None
    size = int(network.model.config.vocab_size)  # type: ignore[union-attr, arg-type]
    drawn = torch.randint(size, (clips, tokens_of(seconds)), generator=generator)
    return [tuple(row) for row in drawn.tolist()]


def largest_difference(
    network: SpeechNetwork,
    hear: Callable[[Inputs, list[Answer] | None], Heard],
    outputs: Callable[[Heard], list[Tensor]],
    *,
    clips: Sequence[Tensor] | None = None,
    distance: Callable[[object, object], float] = relative_difference,
) -> float:
    """The largest relative difference of outputs, over all batches.

    Args:
        network: What was exported.
        hear: What the export makes of a batch.
        outputs: What is compared.
        clips: Speech, in place of the noise.
        distance: How far outputs are apart, in place of their relative difference.
    """
    largest = 0.0
    with torch.no_grad():
        for inputs, answers, _ in batches(network, clips):
            ours, theirs = network.hear(network.model, inputs, answers), hear(inputs, answers)
            difference = distance(outputs(ours), outputs(theirs))
            # A NaN must not pass for small.
            largest = difference if not difference <= largest else largest
    return largest


def ends(heard: Heard) -> list[Tensor]:
    """The last state, and the logits where there are any."""
    return [heard.states[-1], *([] if heard.logits is None else [heard.logits])]
