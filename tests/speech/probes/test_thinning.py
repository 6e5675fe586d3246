"""Thinned sets keep the share of every group that stays."""

from collections import Counter
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from l0prune_speech.audio import Clip
from l0prune_speech.probes.labelled import Example, LabelledSet, Segment
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


def test_trials_are_those_of_the_clips_that_stay() -> None:
    test = examples("test", 3, 4, first=5)
    names = [example.segment.name for example in test]
    trials = tuple((one, other, one[:6] == other[:6]) for one in names for other in names if one < other)
    part = thinned(LabelledSet(name="x", train=examples("train", 2, 9), test=test, trials=trials), 0.5)
    kept = {example.segment.name for example in part.test}
    assert part.trials == tuple(trial for trial in trials if {*trial[:2]} <= kept)
    assert 0 < len(part.trials) < len(trials)
