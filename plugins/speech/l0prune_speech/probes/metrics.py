"""Figures of merit, all as shares from 0 to 1 (an error rate can exceed 1)."""

from collections.abc import Hashable, Sequence

import numpy as np
from torch import Tensor

_DRAWS, _FEWEST_DRAWS, _MOST_SUMMED = 2000, 200, 4e7


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Share of clips whose highest score is that of their class.

    Args:
        scores: (N, classes).
        labels: (N,) class numbers.
    """
    return float((scores.argmax(1) == labels).double().mean())


def edit_distance(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """The fewest insertions, deletions and substitutions that turn one sequence into the other (Levenshtein)."""
    row = list(range(len(other) + 1))
    for number, symbol in enumerate(one, start=1):
        diagonal, row[0] = row[0], number
        for place, against in enumerate(other, start=1):
            kept = diagonal + (symbol != against)
            diagonal = row[place]
            row[place] = min(kept, row[place] + 1, row[place - 1] + 1)
    return row[-1]


def error_rate(found: Sequence[Sequence[Hashable]], wanted: Sequence[Sequence[Hashable]]) -> float:
    """Edits over all clips, as a share of the symbols wanted: the phone error rate.

    Args:
        found: The symbols recognised in each clip.
        wanted: The symbols of each clip; not all empty.
    """
    edits = sum(edit_distance(one, other) for one, other in zip(found, wanted, strict=True))
    return edits / sum(map(len, wanted))


def equal_error_rate(scores: Sequence[float] | np.ndarray, same: Sequence[bool] | np.ndarray) -> float:
    """The error rate at which as many pairs of one speaker are refused as pairs of two speakers are accepted.

    A pair is accepted from a threshold on. Between two thresholds both rates are taken to change linearly.

    Args:
        scores: How much alike the clips of each pair are (N,).
        same: Whether they are of one speaker (N,); some are, and some are not.

    Source: the crossing of the ROC curve with its anti-diagonal.
    """
    scores, same = np.asarray(scores, dtype=float), np.asarray(same, dtype=bool)
    thresholds, places = np.unique(scores, return_inverse=True)
    return _crossing(places, same, np.ones(len(same)), len(thresholds))


def equal_error_interval(
    scores: np.ndarray, same: np.ndarray, pairs: tuple[np.ndarray, np.ndarray], level: float = 0.95
) -> tuple[float, float]:
    """Bootstrap interval of the equal error rate over clips, not over pairs: those of one clip go together.

    Args:
        scores: As `equal_error_rate`'s (N,).
        same: As `equal_error_rate`'s (N,).
        pairs: The numbers of the two clips of each pair, (N,) each. A clip that is drawn twice is no pair with itself.
        level: Of the interval.

    Source: Poh and Bengio 2007, "Estimating the confidence interval of expected performance curve in biometric
    authentication using joint bootstrap": speakers and clips are drawn, because pairs of one clip are not independent.
    """
    scores, same = np.asarray(scores, dtype=float), np.asarray(same, dtype=bool)
    thresholds, places = np.unique(scores, return_inverse=True)
    clips, generator = int(max(map(np.max, pairs))) + 1, np.random.default_rng(0)
    # As many as take a few seconds.
    draws = int(np.clip(_MOST_SUMMED / len(same), _FEWEST_DRAWS, _DRAWS))
    found = []
    for _ in range(draws):
        times = np.bincount(generator.integers(clips, size=clips), minlength=clips)
        weights = (times[pairs[0]] * times[pairs[1]]).astype(float)
        if weights[same].any() and weights[~same].any():
            found.append(_crossing(places, same, weights, len(thresholds)))
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _crossing(places: np.ndarray, same: np.ndarray, weights: np.ndarray, thresholds: int) -> float:
    """Where both error rates are equal.

    Args:
        places: The number of each pair's score among all distinct ones, in rising order (N,).
        same: Whether a pair is of one speaker (N,).
        weights: How often a pair counts (N,).
        thresholds: How many distinct scores there are.
    """

    def steps(chosen: np.ndarray) -> np.ndarray:
        # From the strictest threshold (nothing accepted) to the laxest: one step a distinct score.
        return np.bincount(places[chosen], weights[chosen], thresholds)[::-1].cumsum() / weights[chosen].sum()

    of_one, of_two = steps(same), steps(~same)
    refused, accepted = np.concatenate([[1.0], 1 - of_one]), np.concatenate([[0.0], of_two])
    crossing = int(np.argmax(accepted >= refused))
    before, after = (refused - accepted)[crossing - 1], (refused - accepted)[crossing]
    share = before / (before - after)
    return float(accepted[crossing - 1] + share * (accepted[crossing] - accepted[crossing - 1]))
