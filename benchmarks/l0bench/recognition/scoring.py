"""How well a recogniser hears: word errors, plain and capped, with bootstrap intervals over prompts."""

import re
from collections.abc import Sequence

import numpy as np

_REMARKS = re.compile(r"\[[^\]]*\]|\([^)]*\)|<[^>]*>")


def spoken(transcript: str) -> str:
    """A transcript without remarks in brackets."""
    return " ".join(_REMARKS.sub(" ", transcript).split())


def words(text: str) -> list[str]:
    """Words without punctuation and case: characters that are no letters, digits or underscores are left out."""
    return re.sub(r"[^\w\s]", "", text.lower()).split()


def word_errors(reference: Sequence[str], heard: Sequence[str]) -> int:
    """Fewest words to substitute, insert or delete so that one becomes the other.

    Source: Levenshtein 1966; row by row (Wagner and Fischer 1974).
    """
    above = list(range(len(heard) + 1))
    for i, word in enumerate(reference, 1):
        row = [i]
        for j, other in enumerate(heard, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (word != other)))
        above = row
    return above[-1]


def share(errors: Sequence[int], lengths: Sequence[int], *, capped: bool = False) -> float:
    """Errors for each word of the references.

    Args:
        errors: Of each prompt.
        lengths: Words of each prompt.
        capped: Count no more errors in a prompt than it has words, so that a decoder that loops in one prompt does not
            outweigh all others.
    """
    counted, said = _counted(errors, lengths, capped), np.asarray(lengths)
    return float(counted.sum() / said.sum())


def interval(
    errors: Sequence[int],
    lengths: Sequence[int],
    *,
    capped: bool = False,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Bootstrap interval of `share`: prompts are drawn with replacement, and the middle `level` of the shares taken.

    Source: Bisani and Ney 2004, "Bootstrap estimates for confidence intervals in ASR performance evaluation".
    """
    counted, said = _counted(errors, lengths, capped), np.asarray(lengths)
    return _quantiles(counted, said, level=level, draws=draws, seed=seed)


def mean_interval(
    sums: Sequence[float], counts: Sequence[int], *, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """The same for nats a token: sums over a prompt's tokens, and their counts."""
    return _quantiles(np.asarray(sums), np.asarray(counts), level=level, draws=draws, seed=seed)


def _counted(errors: Sequence[int], lengths: Sequence[int], capped: bool) -> np.ndarray:
    return np.minimum(errors, lengths) if capped else np.asarray(errors)


def _quantiles(sums: np.ndarray, counts: np.ndarray, *, level: float, draws: int, seed: int) -> tuple[float, float]:
    chosen = np.random.default_rng(seed).integers(len(sums), size=(draws, len(sums)))
    shares = sums[chosen].sum(1) / counts[chosen].sum(1)
    low, high = np.quantile(shares, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
