"""What a run is made of: which clips are held out."""

from pathlib import Path

import pytest
from l0prune_speech.data.audio import Clip, find_clips
from l0prune_speech.task import held_out_and_train

from l0prune import DataError


@pytest.fixture(scope="module")
def clip() -> Clip:
    folder = Path(__file__).parents[2] / "plugins/speech/l0prune_speech/assets/speech"
    return find_clips([folder], min_seconds=1.0).clips[0]


@pytest.mark.parametrize("count", [2, 3, 7, 30])
@pytest.mark.parametrize("seconds", [1.0, 60.0, 1e6])
def test_some_clips_are_held_out_however_few_or_long_they_are(clip: Clip, count: int, seconds: float) -> None:
    held_out, train = held_out_and_train((clip,) * count, seconds)
    assert len(held_out) + len(train) == count
    # A fifth at most, but for a single one.
    assert 1 <= len(held_out) <= max(1, count // 5 + 1)
    assert train


def test_a_single_clip_cannot_be_shared(clip: Clip) -> None:
    with pytest.raises(DataError, match=r"too few clips to hold some out .got 1, expected at least 2"):
        held_out_and_train((clip,), 60.0)
