"""Figures of merit, all as shares from 0 to 1 (an error rate can exceed 1)."""

from collections.abc import Hashable, Sequence

import numpy as np
from torch import Tensor


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
    # From the strictest threshold (nothing accepted) to the laxest: one step a distinct score.
    of_one = np.bincount(places[same], minlength=len(thresholds))[::-1].cumsum() / same.sum()
    of_two = np.bincount(places[~same], minlength=len(thresholds))[::-1].cumsum() / (~same).sum()
    refused, accepted = np.concatenate([[1.0], 1 - of_one]), np.concatenate([[0.0], of_two])
    crossing = int(np.argmax(accepted >= refused))
    before, after = (refused - accepted)[crossing - 1], (refused - accepted)[crossing]
    share = before / (before - after)
    return float(accepted[crossing - 1] + share * (accepted[crossing] - accepted[crossing - 1]))
