"""Thinned sets keep the share of every group that stays."""

from collections import Counter
from itertools import combinations
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from l0prune_speech.data.audio import Clip
from l0prune_speech.probes.labelled import Example, LabelledSet, Pair, Segment
from l0prune_speech.probes.thinning import thinned


def examples(split: str, groups: int, each: int, first: int = 0) -> tuple[Example, ...]:
    """Clips of six seconds."""
    return tuple(
        Example(
            segment=Segment(
                clip=Clip(path=Path(f"{split}-{group}-{number}.wav"), sample_rate=16_000, frames=96_000),
                duration_seconds=6.0,
            ),
            label=f"g{group}",
            group=f"g{group}",
        )
        for group in range(first, first + groups)
        for number in range(each)
    )


@given(st.integers(2, 9), st.integers(2, 30), st.integers(1, 20), st.floats(0.5, 30))
def test_classes_stay_even_and_the_minutes_are_kept(groups: int, train: int, test: int, minutes: float) -> None:
    whole = LabelledSet(name="x", train=examples("train", groups, train), test=examples("test", groups, test))
    part = thinned(whole, minutes)
    for split, each in {"train": train, "test": test}.items():
        kept = getattr(part, split)
        assert set(kept) <= set(getattr(whole, split))
        counts = Counter(example.label for example in kept)
        assert max(counts.values()) - min(counts.values()) <= 1
        assert 0.1 * len(kept) <= minutes
        # As much as there is room for, of those groups that stay.
        assert 0.1 * (len(kept) + 1) > minutes or len(kept) == each * len(counts)
    assert {example.label for example in part.test} <= {example.label for example in part.train}
    assert thinned(whole, minutes) == part


def test_a_small_set_stays_whole_and_other_speakers_stay_others() -> None:
    whole = LabelledSet(name="x", train=examples("train", 5, 10), test=examples("test", 3, 4, first=5))
    assert thinned(whole, 30) == whole
    part = thinned(whole, 2)
    assert {len(Counter(e.group for e in split)) for split in (part.train, part.test)} == {2}


@given(st.integers(2, 40), st.integers(1, 6), st.floats(0.5, 30))
def test_classes_are_trained_on_if_few_are_tested(groups: int, tested: int, minutes: float) -> None:
    tested = min(tested, groups)
    whole = LabelledSet(
        name="x", train=examples("train", groups, 9), test=examples("test", tested, 5, first=groups - tested)
    )
    part = thinned(whole, minutes)
    learnt = Counter(example.label for example in part.train)
    assert {example.label for example in part.test} <= set(learnt)
    assert max(learnt.values()) - min(learnt.values()) <= 1
    # Nobody who is tested is left out while there is room.
    room = min(max(2, int(minutes)), tested)
    assert len({example.label for example in part.test}) == min(room, len(part.test))


def with_trials(speakers: int, each: int) -> LabelledSet:
    """Of one speaker every pair, of two every one that both say under the same number."""
    test = examples("test", speakers, each, first=5)
    pairs: tuple[Pair, ...] = tuple(
        (one.segment.name, other.segment.name, one.label == other.label)
        for one, other in combinations(test, 2)
        if one.label == other.label or one.segment.name.split("-")[2] == other.segment.name.split("-")[2]
    )
    return LabelledSet(name="x", train=examples("train", 2, 9), test=test, trials=pairs)


def kinds(labelled: LabelledSet) -> Counter[bool]:
    return Counter(same for _one, _other, same in labelled.trials or ())


@given(st.integers(2, 9), st.integers(2, 9), st.floats(0.2, 10))
def test_trials_fill_the_minutes_as_many_of_one_speaker_as_of_two(speakers: int, each: int, minutes: float) -> None:
    whole = with_trials(speakers, each)
    part = thinned(whole, minutes)
    assert part.trials is not None
    assert set(part.trials) <= set(whole.trials or ())
    assert {name for trial in part.trials for name in trial[:2]} == {example.segment.name for example in part.test}
    assert len(part.test) / 10 <= minutes
    if part.trials != whole.trials:
        # The next trial would have brought two clips at most.
        assert (len(part.test) + 2) / 10 > minutes
        most = kinds(whole)
        assert abs(kinds(part)[True] - kinds(part)[False]) <= 1 or any(kinds(part)[k] == most[k] for k in most)
    assert thinned(whole, minutes) == part


def test_a_long_list_of_trials_keeps_more_than_one_for_each_clip() -> None:
    whole = with_trials(40, 20)
    part = thinned(whole, 10)
    assert len(part.test) == 100
    assert min(kinds(part).values()) > 50
    assert len({example.label for example in part.test}) > 10


def test_a_set_with_trials_that_fits_stays_whole() -> None:
    whole = with_trials(4, 5)
    assert thinned(whole, 30) == whole
