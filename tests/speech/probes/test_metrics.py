"""Edit distance against its definition, and equal error rates whose value is known."""

import itertools
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from l0prune_speech.probes.metrics import accuracy, edit_distance, equal_error_interval, equal_error_rate, error_rate

WORDS = st.text("abc", max_size=6)


def by_definition(one: str, other: str) -> int:
    """The fewest edits, by trying every last edit there is."""

    @cache
    def distance(m: int, n: int) -> int:
        if not m or not n:
            return m + n
        substituted = distance(m - 1, n - 1) + (one[m - 1] != other[n - 1])
        return min(substituted, distance(m - 1, n) + 1, distance(m, n - 1) + 1)

    return distance(len(one), len(other))


@given(WORDS, WORDS)
def test_edit_distance_is_the_fewest_edits(one: str, other: str) -> None:
    assert edit_distance(one, other) == by_definition(one, other)


@given(WORDS, WORDS, WORDS)
def test_edit_distance_is_a_metric(one: str, other: str, third: str) -> None:
    assert edit_distance(one, one) == 0
    assert (edit_distance(one, other) == 0) == (one == other)
    assert edit_distance(one, other) == edit_distance(other, one)
    assert edit_distance(one, third) <= edit_distance(one, other) + edit_distance(other, third)
    assert abs(len(one) - len(other)) <= edit_distance(one, other) <= max(len(one), len(other))


def test_every_single_edit_counts_one() -> None:
    word = "abca"
    for place, symbol in itertools.product(range(len(word)), "abcd"):
        assert edit_distance(word, word[:place] + symbol + word[place:]) == 1
        assert edit_distance(word, word[:place] + word[place + 1 :]) == 1
        assert edit_distance(word, word[:place] + symbol + word[place + 1 :]) == (symbol != word[place])


@given(st.lists(st.tuples(WORDS, st.text("abc", min_size=1, max_size=6)), min_size=1))
def test_error_rate_pools_the_edits_of_all_clips(pairs: list[tuple[str, str]]) -> None:
    found, wanted = zip(*pairs, strict=True)
    edits = sum(by_definition(*pair) for pair in pairs)
    assert error_rate(found, wanted) == pytest.approx(edits / len("".join(wanted)))
    assert error_rate([""] * len(wanted), wanted) == 1
    assert error_rate(wanted, wanted) == 0


def test_accuracy_counts_the_best_class() -> None:
    scores = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.4, 0.6]])
    assert accuracy(scores, torch.tensor([1, 0, 0])) == pytest.approx(2 / 3)


def test_equal_error_rate_where_it_is_known() -> None:
    assert equal_error_rate([3, 2, 1, 0], [True, True, False, False]) == 0
    assert equal_error_rate([3, 2, 1, 0], [False, False, True, True]) == 1
    # One of two pairs of each kind stands on the wrong side.
    assert equal_error_rate([3, 2, 1, 0], [True, False, True, False]) == 0.5
    # One of four.
    assert equal_error_rate([9, 8, 7, 2, 6, 1, 1, 0], [True] * 4 + [False] * 4) == 0.25
    # All scores alike: any mixture of refusing and accepting all.
    assert equal_error_rate([1, 1, 1], [True, False, False]) == 0.5


@given(st.floats(0, 1), st.integers(1, 40), st.integers(1, 40))
def test_equal_error_rate_of_uniform_scores_on_overlapping_ranges(shift: float, ones: int, twos: int) -> None:
    """Scores of pairs of two speakers evenly on [0, 1], of one speaker on [shift, 1 + shift]: (1 - shift) / 2."""
    same = shift + (np.arange(50 * ones) + 0.5) / (50 * ones)
    other = (np.arange(50 * twos) + 0.5) / (50 * twos)
    found = equal_error_rate(np.concatenate([same, other]), np.repeat([True, False], [len(same), len(other)]))
    assert found == pytest.approx((1 - shift) / 2, abs=0.5 / 50)


@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2), st.floats(0.1, 9), st.floats(-9, 9))
def test_equal_error_rate_depends_on_the_order_alone(pairs, scale: float, shift: float) -> None:
    scores, same = (np.array(values) for values in zip(*pairs, strict=True))
    if same.all() or not same.any():
        return
    found = equal_error_rate(scores, same)
    assert 0 <= found <= 1
    assert equal_error_rate(scale * scores + shift, same) == pytest.approx(found)
    assert equal_error_rate(-scores, ~same) == pytest.approx(found)
    order = np.random.default_rng(0).permutation(len(same))
    assert equal_error_rate(scores[order], same[order]) == pytest.approx(found)


def verified(clips: int, apart: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Scores, same and pairs of clips of four speakers, whose vectors are noise around their speaker's."""
    generator = np.random.default_rng(seed)
    speakers = np.arange(clips) % 4
    vectors = apart * np.eye(4)[speakers] + generator.standard_normal((clips, 4))
    first, second = np.triu_indices(clips, 1)
    scores = -np.square(vectors[first] - vectors[second]).sum(1)
    return scores, speakers[first] == speakers[second], (first, second)


def test_equal_error_interval_is_around_the_rate_and_narrows_with_clips() -> None:
    widths = []
    for clips in (16, 64):
        scores, same, pairs = verified(clips, apart=1.5)
        low, high = equal_error_interval(scores, same, pairs)
        assert low < equal_error_rate(scores, same) < high
        assert equal_error_interval(3 * scores - 1, same, pairs) == pytest.approx((low, high))
        widths.append(high - low)
    assert widths[1] < 0.75 * widths[0]
    assert equal_error_interval(*verified(16, apart=99)) == (0, 0)


def test_equal_error_interval_covers_the_rate_of_many_clips() -> None:
    scores, same, _ = verified(600, apart=1.5, seed=99)
    rate = equal_error_rate(scores, same)
    inside = [
        low <= rate <= high for low, high in (equal_error_interval(*verified(40, 1.5, seed)) for seed in range(20))
    ]
    # 95 % are wanted; of twenty at least 15 with a probability of 0.9997.
    assert sum(inside) >= 15
