"""A student's figures on held-out prompts: nats, word errors, distance from the dense encoder's states."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from l0bench.recognition.kept_states import Windows
from l0bench.recognition.losses import distance
from l0bench.recognition.recogniser import Recogniser
from l0bench.recognition.scoring import interval, mean_interval, share, word_errors, words

_AT_ONCE = 20


@dataclass(frozen=True, kw_only=True)
class Nats:
    """Of true transcripts, prompt by prompt."""

    sums: list[float]
    counts: list[int]

    @property
    def mean(self) -> float:
        """A token."""
        return sum(self.sums) / sum(self.counts)


@torch.no_grad()
def _states(encoder: nn.Module, windows: Windows) -> Iterator[tuple[range, list[Tensor]]]:
    encoder.eval()
    for chosen in windows.in_turn(_AT_ONCE):
        yield chosen, [*encoder(windows.features(chosen), output_hidden_states=True).hidden_states]


def nats_of(encoder: nn.Module, windows: Windows, recogniser: Recogniser) -> Nats:
    """By teacher forcing, without decoding."""
    sums, counts = [], []
    for chosen, states in _states(encoder, windows):
        _listen(recogniser, windows, chosen, states[-1], sums, counts)
    return Nats(sums=sums, counts=counts)


@torch.no_grad()
def _listen(
    recogniser: Recogniser, windows: Windows, chosen: range, last: Tensor, sums: list[float], counts: list[int]
) -> None:
    found, tokens = recogniser.nats(last, [windows.tokens[i] for i in chosen])
    sums += found.tolist()
    counts += tokens.tolist()


@torch.no_grad()
def evaluate(encoder: nn.Module, windows: Windows, recogniser: Recogniser) -> dict[str, Any]:
    """All figures: shares in [0, 1], intervals of 95 %, and each prompt's own, to compare students in pairs.

    Args:
        encoder: Put into evaluation mode.
        windows: The test set.
        recogniser: Whose decoder listens.
    """
    sums, counts, errors, lengths = [], [], [], []
    apart: list[list[float]] = []
    for chosen, states in _states(encoder, windows):
        _listen(recogniser, windows, chosen, states[-1], sums, counts)
        targets = windows.states(chosen)
        apart.append([len(chosen) * float(distance(s, t)) for s, t in zip(states, targets, strict=True)])
        for i, heard in zip(chosen, recogniser.heard(states[-1]), strict=True):
            said = words(windows.texts[i])
            errors.append(word_errors(said, heard))
            lengths.append(len(said))
    by_layer = [sum(parts) / len(windows) for parts in zip(*apart, strict=True)]
    return {
        "nats": sum(sums) / sum(counts),
        "nats_interval": mean_interval(sums, counts),
        "errors_capped": share(errors, lengths, capped=True),
        "errors_capped_interval": interval(errors, lengths, capped=True),
        "errors_plain": share(errors, lengths),
        "errors_plain_interval": interval(errors, lengths),
        "distance_last": by_layer[-1],
        "distance_all": sum(by_layer) / len(by_layer),
        "prompt_errors": errors,
        "prompt_words": lengths,
        "prompt_nats": [round(value, 4) for value in sums],
        "prompt_tokens": counts,
    }
