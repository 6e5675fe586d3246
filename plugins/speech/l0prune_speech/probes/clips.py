"""Probes of whole clips: classes (keywords, speakers), and whether two clips are of one speaker.

Legend: N clips, S hidden states, D width.
"""

from collections import Counter
from itertools import combinations
from random import Random

import torch
from torch import nn

from l0prune import DataError
from l0prune_speech.probes.checks import check_classes
from l0prune_speech.probes.features import Features
from l0prune_speech.probes.fitting import Outcome, Schedule, Trial, fit, scaled_means, seeded, training_labels
from l0prune_speech.probes.heads import LinearProbe, SpeakerProbe
from l0prune_speech.probes.labelled import LabelledSet, numbered
from l0prune_speech.probes.metrics import accuracy, equal_error_rate

_SCHEDULE = Schedule(steps=400, batch=32)


def classify(features: Features, labelled: LabelledSet, trial: Trial) -> Outcome:
    """Accuracy of a linear layer on the mean over time of the weighted sum."""
    train, test = scaled_means(features, labelled, trial)
    classes = numbered(example.label for example in labelled.train)
    wanted = torch.tensor([classes[label] for label in training_labels(labelled.train, trial)], device=trial.device)
    net = seeded(lambda: LinearProbe(train.shape[0], train.shape[2], len(classes)), trial)

    def loss(chosen: list[int]) -> torch.Tensor:
        return nn.functional.cross_entropy(net(train[:, chosen]), wanted[chosen])

    fit(net, loss, len(wanted), _SCHEDULE, trial)
    with torch.no_grad():
        scores = net(test).cpu()
    true = torch.tensor([classes[example.label] for example in labelled.test])
    return Outcome(score=accuracy(scores, true), layer_weights=tuple(net.sum.weights.tolist()))


def chance(labelled: LabelledSet) -> float:
    """Share of the most frequent class among the clips of the test set."""
    counts = Counter(example.label for example in labelled.test)
    return max(counts.values()) / len(labelled.test)


def verify(features: Features, labelled: LabelledSet, trial: Trial) -> Outcome:
    """Equal error rate of the cosine between embeddings, learnt by telling the speakers of the training set apart.

    How alike the clips of a speaker are needs no labels: where those are shuffled, so are the pairs'.
    """
    train, test = scaled_means(features, labelled, trial)
    speakers = numbered(example.label for example in labelled.train)
    wanted = torch.tensor([speakers[label] for label in training_labels(labelled.train, trial)], device=trial.device)
    net = seeded(lambda: SpeakerProbe(train.shape[0], train.shape[2], len(speakers)), trial)
    fit(net, lambda chosen: net(train[:, chosen], wanted[chosen]), len(wanted), _SCHEDULE, trial)
    with torch.no_grad():
        embeddings = net.embed(test).cpu()
    ones, others, same = map(list, zip(*pairs(labelled), strict=True))
    if trial.shuffle_labels:
        Random(trial.seed).shuffle(same)
    scores = (embeddings[ones] * embeddings[others]).sum(1)
    return Outcome(score=equal_error_rate(scores.numpy(), same), layer_weights=tuple(net.sum.weights.tolist()))


def count_trials(labelled: LabelledSet) -> dict[str, int]:
    """How many pairs of test clips there are to compare, of one speaker and of two."""
    # All pairs of a whole corpus are too many to be listed.
    by_speaker = Counter(example.label for example in labelled.test).values()
    same, total = sum(map(_pairs_of, by_speaker)), _pairs_of(len(labelled.test))
    if labelled.trials is not None:
        same, total = sum(same for _one, _other, same in labelled.trials), len(labelled.trials)
    return {"same_speaker_trials": same, "different_speaker_trials": total - same}


def _pairs_of(count: int) -> int:
    return count * (count - 1) // 2


def pairs(labelled: LabelledSet) -> list[tuple[int, int, bool]]:
    """Numbers of the test clips to compare, and whether they are of one speaker: the set's trials, or all pairs."""
    if labelled.trials is not None:
        places = {example.segment.name: place for place, example in enumerate(labelled.test)}
        return [(places[one], places[other], same) for one, other, same in labelled.trials]
    labels = [example.label for example in labelled.test]
    return [(one, other, labels[one] == labels[other]) for one, other in combinations(range(len(labels)), 2)]


def check_trials(labelled: LabelledSet) -> None:
    """Raise a `DataError` where speakers cannot be learnt, or no pairs of both kinds be compared."""
    check_classes(labelled, unseen=True)
    same, different = count_trials(labelled).values()
    if not same or not different:
        got = f"only pairs of {'one speaker' if same else 'two speakers'}" if same or different else "none at all"
        raise DataError("no pairs to verify speakers with", where=labelled.name, got=got, expected="both kinds")
