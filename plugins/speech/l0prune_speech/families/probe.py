"""A network on noise: what it is looked at, counted and compared by."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from l0prune_speech.data import SAMPLE_RATE
from l0prune_speech.families.network import Heard, SpeechNetwork

_TOKENS_PER_SECOND, _LEAST_TOKENS = 4, 4


def tokens_of(seconds: float) -> int:
    """How many tokens a decoder is told of a clip."""
    return max(round(seconds * _TOKENS_PER_SECOND), _LEAST_TOKENS)


def heard_noise(
    network: SpeechNetwork, seconds: float, *, clips: int = 1, seed: int = 0
) -> Callable[[nn.Module], Heard]:
    """Runs a model of the network on clips of noise, the second one shorter than the first.

    Args:
        network: What turns noise into inputs; a window of its own is the most that is heard.
        seconds: Of the longest clip.
        clips: How many.
        seed: Of the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    longest = min(seconds, network.window_seconds or seconds)
    lengths = [round(longest * SAMPLE_RATE * (1 if clip % 2 == 0 else 0.8)) for clip in range(clips)]
    inputs = network.inputs([0.1 * torch.randn(length, generator=generator) for length in lengths])
    answers = None
    if network.task == "seq2seq":
        size = int(network.model.config.vocab_size)  # type: ignore[union-attr, arg-type]
        drawn = torch.randint(size, (clips, tokens_of(longest)), generator=generator)
        answers = [tuple(row) for row in drawn.tolist()]

    def hear(model: nn.Module) -> Heard:
        device = next(model.parameters()).device
        return network.hear(model, {name: tensor.to(device) for name, tensor in inputs.items()}, answers)

    return hear


def observation_of(
    network: SpeechNetwork, seconds: float, *, clips: int = 1, seed: int = 0
) -> Callable[[nn.Module], Any]:
    """Runs a model as `heard_noise`, and gives all tensors that are read of it."""
    hear = heard_noise(network, seconds, clips=clips, seed=seed)

    def observe(model: nn.Module) -> list[Tensor]:
        heard = hear(model)
        return [*heard.states, *([] if heard.logits is None else [heard.logits])]

    return observe
