"""What all methods are given: the recogniser, the windows, the objective, the encoder's groups and its budget."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import l0prune
from l0bench.real_material.speech import prompts
from l0bench.recognition.evaluation import nats_of
from l0bench.recognition.kept_states import Windows, kept
from l0bench.recognition.losses import Loss, Objective
from l0bench.recognition.prompt_sets import joined, split
from l0bench.recognition.recogniser import Recogniser
from l0bench.recognition.trial import Trial
from l0prune import PruneGroup
from l0prune.size import budget_for

BATCH = 2
POOL = 256
LABELLED = 64
"""Clips over which one-shot importances are measured."""


@dataclass(frozen=True, kw_only=True)
class Sets:
    """Windows with the dense encoder's states."""

    pool: Windows
    """To train on."""
    labelled: Windows
    """Single training clips, for importances."""
    validation: Windows
    test: Windows


def open_sets(material: Path, recogniser: Recogniser) -> Sets:
    """Bring the speech and compute what is kept of it, at first use."""
    found = split(prompts("en", material))
    longer = [clip for clip in found.train if len(clip.text.split()) >= 3]
    chosen = np.random.default_rng(0).permutation(len(longer))[:LABELLED]

    def keep(name: str, windows: Sequence[Any]) -> Windows:
        return kept(name, windows, recogniser, material)

    return Sets(
        pool=keep("pool", joined(found.train, POOL)),
        labelled=keep("labelled", [longer[i] for i in chosen]),
        validation=keep("validation", found.validation),
        test=keep("test", found.test),
    )


class Problem:
    """One trial's problem.

    Args:
        recogniser: Its encoder is the dense one; it is left as it is.
        sets: The windows.
        trial: Size, objective, rate, seed.
    """

    def __init__(self, recogniser: Recogniser, sets: Sets, trial: Trial) -> None:
        self.recogniser, self.sets, self.trial = recogniser, sets, trial
        self.objective = Objective(trial.objective, recogniser)
        self._batches = sets.pool.batches(BATCH, trial.seed)

    def encoder(self) -> nn.Module:
        """A copy of the dense one."""
        return copy.deepcopy(self.recogniser.encoder)

    @cached_property
    def example(self) -> Tensor:
        """One window's spectrum."""
        return self.sets.pool.features([0])

    @cached_property
    def inspection(self) -> l0prune.Inspection:
        """What can be pruned in the encoder."""
        return l0prune.inspect(self.encoder(), self.example)

    @property
    def groups(self) -> tuple[PruneGroup, ...]:
        """The encoder's."""
        return self.inspection.groups

    @property
    def share(self) -> float:
        """Of the parameters, to remove."""
        return self.trial.size / 100

    @cached_property
    def budget(self) -> int:
        """Most parameters that a student may have."""
        return budget_for(self.inspection.parameter_model, self.share)

    def next_loss(self, encoder: nn.Module) -> Loss:
        """On the next batch of the pool: a seed's batches are the same for all methods."""
        with self._autocast():
            return self.objective(encoder, self.sets.pool, next(self._batches))

    def mean_loss(self, encoder: nn.Module, *, windows: int = 16) -> float:
        """On the pool's first windows, without gradients, in the mode that the encoder is in."""
        chosen = [range(first, first + BATCH) for first in range(0, min(windows, len(self.sets.pool)), BATCH)]
        with torch.no_grad(), self._autocast():
            return sum(float(self.objective(encoder, self.sets.pool, c).total) for c in chosen) / len(chosen)

    def validation_nats(self, encoder: nn.Module) -> float:
        """Nats a token on the prompts that learning rates are chosen on; leaves the encoder in evaluation mode."""
        return nats_of(encoder, self.sets.validation, self.recogniser).mean

    def labelled_loss(self, encoder: nn.Module, chosen: Sequence[int], kind: str = "task") -> Tensor:
        """The loss of some of the labelled clips.

        Args:
            encoder: Whose.
            chosen: Numbers of clips.
            kind: "task" is the recogniser's own loss alone; otherwise an objective of `losses.OBJECTIVES`.
        """
        found = Objective(kind, self.recogniser)(encoder, self.sets.labelled, chosen)
        return found.total if found.task is None else found.task

    def labelled_losses(self, kind: str) -> Iterator[Callable[[nn.Module], Tensor]]:
        """`labelled_loss` of all labelled clips, a batch at a time."""
        for chosen in self.sets.labelled.in_turn(BATCH):
            yield partial(self.labelled_loss, chosen=chosen, kind=kind)

    def _autocast(self) -> Any:
        if self.trial.precision == "float32":
            return nullcontext()
        return torch.autocast("cpu", dtype=getattr(torch, self.trial.precision))
