"""Training a head on features that are already there. Legend: N clips, S hidden states, D width."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

import torch
from torch import Tensor, nn

from l0prune_speech.probes.features import Features
from l0prune_speech.probes.labelled import Example, Label, LabelledSet

Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How a probe is trained and tested once."""

    seed: int
    """Of the head's weights and of the order of the clips."""
    learning_rate: float
    shuffle_labels: bool
    """Give the training clips each other's labels: what is learnt then is chance."""
    device: torch.device


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of it."""

    score: float
    layer_weights: tuple[float, ...]
    """Of the hidden states in the weighted sum."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How a head is trained: AdamW, the rate falling to 0 along a half cosine."""

    steps: int
    batch: int
    """Clips."""
    weight_decay: float = 0.01
    largest_gradient: float = math.inf
    """The norm to which a greater one is shortened."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Brings states to mean 0 and deviation 1 over the training set.

    So one learning rate suits every model, log-mel energies as well as hidden states.
    """

    mean: Tensor
    """(S, 1, D)."""
    deviation: Tensor
    """(S, 1, D), or (S, 1, 1)."""

    @classmethod
    def of_channels(cls, states: Tensor) -> "Scale":
        """Every channel by itself, states (S, N, D): where N is much larger than D, as it is for frames."""
        deviation = states.std(1, correction=0, keepdim=True) + 1e-5
        return cls(mean=states.mean(1, keepdim=True), deviation=deviation)

    @classmethod
    def of_states(cls, states: Tensor) -> "Scale":
        """The deviation is that of all channels together: where N is about D, as it is for clips.

        Channels that hardly change, the differences of log-mel energies averaged over a clip say, would else be blown
        up to noise that drowns the others.
        """
        mean = states.mean(1, keepdim=True)
        return cls(mean=mean, deviation=(states - mean).square().mean((1, 2), keepdim=True).sqrt() + 1e-5)

    def __call__(self, states: Tensor) -> Tensor:
        """(S, N, D) -> the same, standardised."""
        return (states - self.mean) / self.deviation


def fit(net: nn.Module, loss: Callable[[list[int]], Tensor], examples: int, schedule: Schedule, trial: Trial) -> None:
    """Train a head.

    Args:
        net: What is trained.
        loss: That of the examples of these numbers.
        examples: How many there are; each comes once in every pass.
        schedule: How long.
        trial: From which seed and how fast.
    """
    optimizer = torch.optim.AdamW(net.parameters(), lr=trial.learning_rate, weight_decay=schedule.weight_decay)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, schedule.steps)
    generator, order = torch.Generator().manual_seed(trial.seed), []
    for _ in range(schedule.steps):
        if len(order) < min(schedule.batch, examples):
            order = torch.randperm(examples, generator=generator).tolist()
        chosen, order = order[: schedule.batch], order[schedule.batch :]
        optimizer.zero_grad()
        loss(chosen).backward()
        if schedule.largest_gradient < math.inf:
            nn.utils.clip_grad_norm_(net.parameters(), schedule.largest_gradient)
        optimizer.step()
        falling.step()


def seeded(make: Callable[[], Net], trial: Trial) -> Net:
    """A head with the weights of a trial's seed, on its device."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(trial.seed)
        return make().to(trial.device)


def training_labels(examples: Sequence[Example], trial: Trial) -> list[Label]:
    """Labels of the training clips, or each other's."""
    labels = [example.label for example in examples]
    if trial.shuffle_labels:
        Random(trial.seed).shuffle(labels)
    return labels


def scaled_means(features: Features, labelled: LabelledSet, trial: Trial) -> tuple[Tensor, Tensor]:
    """Means over time of the training and the test clips, (S, N, D) each, standardised by the former."""
    train, test = (
        torch.stack([features.means[example.segment.name] for example in split], dim=1).to(trial.device)
        for split in (labelled.train, labelled.test)
    )
    scale = Scale.of_states(train)
    return scale(train), scale(test)
