"""Parts of a training set: everything is held out once, and what is tested can have been learnt."""

from collections import Counter
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from l0prune_speech.data.audio import Clip
from l0prune_speech.probes.held_out import class_folds, clip_folds
from l0prune_speech.probes.labelled import Example, LabelledSet, Segment

COUNTS = st.lists(st.integers(2, 9), min_size=2, max_size=9)
"""Clips of each class."""


def labelled(counts: list[int]) -> LabelledSet:
    def example(name: str, label: int) -> Example:
        clip = Clip(path=Path(name), sample_rate=16_000, frames=16_000)
        return Example(segment=Segment(clip=clip, duration_seconds=1.0), label=f"c{label}", group=f"c{label}")

    train = [example(f"{label}-{number}", label) for label, count in enumerate(counts) for number in range(count)]
    return LabelledSet(name="made", train=tuple(train), test=(example("other", 0),))


@given(COUNTS, st.integers(2, 8))
def test_every_clip_is_held_out_once_and_its_class_is_still_learnt(counts: list[int], folds: int) -> None:
    whole = labelled(counts)
    parts = clip_folds(whole, folds)
    assert Counter(e.segment.name for part in parts for e in part.test) == Counter(e.segment.name for e in whole.train)
    for part in parts:
        assert {*part.train} | {*part.test} == {*whole.train}
        assert {e.label for e in part.test} <= {e.label for e in part.train}
        assert len(part.train) + len(part.test) == len(whole.train)


@given(COUNTS, st.integers(2, 4))
def test_every_class_is_held_out_once_and_whole(counts: list[int], folds: int) -> None:
    whole = labelled(counts)
    parts = class_folds(whole, folds)
    assert bool(parts) == (len(counts) >= 2 * folds)
    if parts:
        assert sorted(e.segment.name for part in parts for e in part.test) == sorted(
            e.segment.name for e in whole.train
        )
    for part in parts:
        tested, learnt = ({e.label for e in split} for split in (part.test, part.train))
        assert tested.isdisjoint(learnt)
        assert min(len(tested), len(learnt)) >= 2
