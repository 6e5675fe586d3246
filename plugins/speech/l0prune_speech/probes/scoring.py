"""One model on one task: a learning rate chosen on held-out training clips, then a probe from each seed."""

import statistics

import torch

from l0prune import EvaluationSettings, Score
from l0prune_speech.probes.catalogue import TASKS
from l0prune_speech.probes.features import Features
from l0prune_speech.probes.fitting import Trial
from l0prune_speech.probes.labelled import LabelledSet
from l0prune_speech.probes.tasks import PROBES


def score(
    model: str, task: str, features: Features, labelled: LabelledSet, settings: EvaluationSettings, device: torch.device
) -> Score:
    """Train and test the probes of a task.

    Args:
        model: Its name.
        task: One of `PROBES`.
        features: Hidden states of the clips.
        labelled: What to train and test on.
        settings: Seeds, and whether labels are shuffled.
        device: Where the probes are trained.
    """
    rate = _best_rate(task, features, labelled, settings, device)
    outcomes = [
        PROBES[task].attempt(features, labelled, _trial(seed, rate, settings, device)) for seed in settings.seeds
    ]
    weights = zip(*(outcome.layer_weights for outcome in outcomes), strict=True)
    return Score(
        model=model,
        task=task,
        values=tuple(outcome.score for outcome in outcomes),
        facts={"learning_rate": rate, "layer_weights": [statistics.fmean(of_layer) for of_layer in weights]},
    )


def _best_rate(
    task: str, features: Features, labelled: LabelledSet, settings: EvaluationSettings, device: torch.device
) -> float:
    """The learning rate that does best on held-out parts of the training set; the middle one where they do not tell."""
    probe = PROBES[task]
    folds = probe.folds(labelled)
    sign = 1 if TASKS[task].higher_is_better else -1
    middle = len(probe.learning_rates) // 2

    def merit(rate: float) -> float:
        trial = _trial(settings.seeds[0], rate, settings, device)
        return sign * sum(probe.attempt(features, fold, trial).score for fold in folds)

    first = sorted(probe.learning_rates, key=lambda rate: abs(probe.learning_rates.index(rate) - middle))
    return max(first, key=merit) if folds else first[0]


def _trial(seed: int, rate: float, settings: EvaluationSettings, device: torch.device) -> Trial:
    return Trial(seed=seed, learning_rate=rate, shuffle_labels=settings.shuffle_labels, device=device)
