"""benchmarks/recognition/scoring.py: word errors against brute force, capping, bootstrap intervals."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from l0bench.recognition.scoring import interval, mean_interval, share, spoken, word_errors, words
from torchaudio.functional import edit_distance

SAID = st.lists(st.sampled_from("abc"), max_size=6)
PROMPTS = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 25)), min_size=1, max_size=20)


def brute_force(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """The definition: the cheapest of all ways to rewrite one into the other."""

    @cache
    def least(i: int, j: int) -> int:
        if i == len(one) or j == len(other):
            return len(one) - i + len(other) - j
        return min(
            least(i + 1, j) + 1,
            least(i, j + 1) + 1,
            least(i + 1, j + 1) + (one[i] != other[j]),
        )

    return least(0, 0)


@given(SAID, SAID)
def test_word_errors_are_the_edit_distance(said: list[str], heard: list[str]) -> None:
    assert word_errors(said, heard) == brute_force(tuple(said), tuple(heard)) == edit_distance(said, heard)


@given(PROMPTS)
def test_capped_errors_are_at_most_all_words_and_at_most_the_plain_ones(prompts: list[tuple[int, int]]) -> None:
    errors, lengths = zip(*prompts, strict=True)
    capped, plain = share(errors, lengths, capped=True), share(errors, lengths)
    assert capped <= min(1.0, plain)
    if all(error <= length for error, length in prompts):
        assert capped == plain


@given(PROMPTS, st.booleans())
def test_intervals_repeat_and_lie_among_the_prompts_shares(prompts: list[tuple[int, int]], capped: bool) -> None:
    errors, lengths = zip(*prompts, strict=True)
    low, high = interval(errors, lengths, capped=capped, draws=50)
    assert (low, high) == interval(errors, lengths, capped=capped, draws=50)
    each = [share([error], [length], capped=capped) for error, length in prompts]
    assert min(each) - 1e-9 <= low <= high <= max(each) + 1e-9


def test_an_interval_covers_the_true_share_about_as_often_as_it_says() -> None:
    import numpy as np

    generator, covered = np.random.default_rng(0), 0
    for seed in range(200):
        errors = generator.binomial(8, 0.25, size=120)
        low, high = interval(errors.tolist(), [8] * 120, draws=300, seed=seed)
        covered += low <= 0.25 <= high
    assert 180 <= covered <= 198


def test_the_interval_of_one_prompt_is_its_mean() -> None:
    assert mean_interval([3.0], [4]) == (0.75, 0.75)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Please, enter your PIN.", ["please", "enter", "your", "pin"]),
        ("I'm 9!", ["im", "9"]),
        ("... to lock", ["to", "lock"]),
        ("", []),
    ],
)
def test_words_have_no_punctuation_and_no_case(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_remarks_in_brackets_are_not_spoken() -> None:
    assert spoken("at [@] the  tone (beep) <silence> now") == "at the tone now"
