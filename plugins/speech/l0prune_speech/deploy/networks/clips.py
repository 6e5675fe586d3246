"""What a network and its export are compared on: clips of noise, of several lengths."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from l0prune import relative_difference
from l0prune_speech.data import SAMPLE_RATE
from l0prune_speech.families import Answer, Heard, Inputs, SpeechNetwork, tokens_of

_CLIPS = ((1.3, 1.0), (0.7,))
"""Seconds of each clip of each batch."""


def batches(network: SpeechNetwork) -> Iterator[tuple[dict[str, Tensor], list[Answer] | None, float]]:
    """Inputs of a network, what its decoder is told, and the seconds of the longest clip.

    Without a window and a mask, a decoder cannot tell padding from sound: then clips of a batch are of one length.
    """
    generator = torch.Generator().manual_seed(1)
    for lengths in _CLIPS:
        most = min(network.window_seconds or max(lengths), max(lengths))
        seconds = [min(length, most) for length in lengths]
        if network.task == "seq2seq" and network.window_seconds is None:
            seconds = [most] * len(seconds)
        clips = [0.1 * torch.randn(round(one * SAMPLE_RATE), generator=generator) for one in seconds]
        answers: list[Answer] | None = None
        if network.task == "seq2seq":
            size = int(network.model.config.vocab_size)  # type: ignore[union-attr, arg-type]
            drawn = torch.randint(size, (len(clips), tokens_of(most)), generator=generator)
            answers = [tuple(row) for row in drawn.tolist()]
        yield network.inputs(clips), answers, most


def largest_difference(
    network: SpeechNetwork,
    hear: Callable[[Inputs, list[Answer] | None], Heard],
    outputs: Callable[[Heard], list[Tensor]],
) -> float:
    """The largest relative difference of outputs, over all batches.

    Args:
        network: What was exported.
        hear: What the export makes of a batch.
        outputs: What is compared.
    """
    largest = 0.0
    with torch.no_grad():
        for inputs, answers, _ in batches(network):
            ours, theirs = network.hear(network.model, inputs, answers), hear(inputs, answers)
            difference = relative_difference(outputs(ours), outputs(theirs))
            # A NaN must not pass for small.
            largest = difference if not difference <= largest else largest
    return largest


def ends(heard: Heard) -> list[Tensor]:
    """The last state, and the logits where there are any."""
    return [heard.states[-1], *([] if heard.logits is None else [heard.logits])]
