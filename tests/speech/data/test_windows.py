"""Short clips are joined to windows: every clip once, the same bits from any position, and counted."""

import itertools
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from l0prune_speech.data import AudioBatches, Clip, Window, clips_digest, find_clips, find_sounds, fixed_batches, piece
from l0prune_speech.data.windows import GAP_SECONDS, join, read_samples

from l0prune.errors import DataError

LONG = (2.5, 3.0)
SHORT = (0.4, 0.9, 1.2, 0.7, 1.9, 0.5, 1.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two clips of two seconds and more, and seven shorter ones; each holds a number of its own."""
    for number, seconds in enumerate(LONG + SHORT):
        wave = np.full(round(16_000 * seconds), (number + 1) / 32, dtype=np.float32)
        soundfile.write(tmp_path / f"{number}.wav", wave, 16_000, subtype="FLOAT")
    return tmp_path


def sounds(folder: Path, *, short_clips: str = "join", seed: int = 0, min_seconds: float = 2.0):
    return find_sounds([folder], min_seconds=min_seconds, short_clips=short_clips, seed=seed)


lengths = st.lists(st.floats(0.01, 1.99), max_size=30)


@settings(max_examples=60, deadline=None)
@given(lengths, st.integers(0, 2**40))
def test_each_clip_is_in_one_window_which_is_long_enough(durations: list[float], seed: int) -> None:
    clips = [Clip(path=Path(f"{n}.wav"), sample_rate=8_000, frames=1 + int(s * 8_000)) for n, s in enumerate(durations)]
    windows, left = join(clips, seconds=2.0, seed=seed)
    used = [clip.name for window in windows for clip in window.clips] + [clip.name for clip in left]
    assert sorted(used) == sorted(clip.name for clip in clips)
    assert all(2.0 <= window.duration_seconds < 3 * 2.0 + 2 * GAP_SECONDS for window in windows)
    # What is left was too short for a window of its own, and there is none that could take it.
    assert not (windows and left)
    assert join(clips, seconds=2.0, seed=seed) == (windows, left)


def test_short_clips_are_joined_and_counted(folder: Path) -> None:
    found = sounds(folder)
    windows = [sound for sound in found.sounds if isinstance(sound, Window)]
    assert [sound.name for sound in found.sounds[:2]] == ["0.wav", "1.wav"]
    assert sorted(clip.name for window in windows for clip in window.clips) == [f"{n}.wav" for n in range(2, 9)]
    minutes = sum(window.duration_seconds for window in windows) / 60
    expected = f"2 clips, 0.1 minutes; 7 shorter than 2.0 s joined into {len(windows)} windows, {minutes:.1f} minutes"
    assert found.text == expected
    assert sounds(folder, seed=1).sounds != found.sounds


def test_they_are_skipped_where_one_asks_for_it(folder: Path) -> None:
    found = sounds(folder, short_clips="skip")
    assert found.sounds == find_clips([folder], min_seconds=2.0).clips
    assert "7 skipped, 78% OF ALL FILES" in found.text


def test_a_window_holds_its_clips_with_silence_between_them(folder: Path) -> None:
    window = max((one for one in sounds(folder).sounds if isinstance(one, Window)), key=lambda one: len(one.clips))
    heard, gap = window.read(), round(GAP_SECONDS * 16_000)
    assert len(heard) == window.samples == round(window.duration_seconds * 16_000)
    start = 0
    for clip in window.clips:
        assert torch.equal(heard[start : start + clip.samples].unique(), torch.tensor([(int(clip.path.stem) + 1) / 32]))
        assert not heard[start + clip.samples : start + clip.samples + gap].any()
        start += clip.samples + gap
    assert torch.equal(read_samples(window, 100, 9_000), heard[100:9_100])
    assert torch.equal(piece(window).read(), heard)


def test_batches_with_windows_are_the_same_from_any_position_and_shared(folder: Path) -> None:
    def stream(**changes: int) -> AudioBatches:
        return AudioBatches(clips=sounds(folder).sounds, batch_seconds=6.0, max_seconds=4.0, seed=3, **changes)

    whole = list(itertools.islice(stream()(0), 6))
    for position in (1, 4):
        for one, other in zip(itertools.islice(stream()(position), 2), whole[position:], strict=False):
            assert torch.equal(one, other)
    assert all(torch.equal(a, b) for a, b in zip(itertools.islice(stream(workers=1)(0), 3), whole[:3], strict=True))
    shares = [list(itertools.islice(stream().share(rank=rank, world_size=2, split=1)(0), 3)) for rank in (0, 1)]
    mixed = itertools.chain(*zip(*shares, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(mixed, whole, strict=True))
    # Each number is heard in one epoch, and in the fixed batches.
    epoch = torch.cat([batch.flatten() for batch in itertools.islice(stream()(0), stream().batches_per_epoch())])
    assert len(epoch.unique()) >= len(LONG)
    fixed = torch.cat(
        [batch.flatten() for batch in fixed_batches(sounds(folder).sounds, batch_seconds=40, max_seconds=15)]
    )
    assert fixed.any()
    assert clips_digest(sounds(folder).sounds) != clips_digest(sounds(folder, short_clips="skip").sounds)


def test_too_little_for_a_window_is_skipped_or_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(8_000), 16_000)
    with pytest.raises(DataError, match=r"no usable clips: .*1 file: 1 shorter than 2\.0 s.*longest is 0\.5 s"):
        sounds(tmp_path)
    soundfile.write(tmp_path / "b.wav", np.zeros(48_000), 16_000)
    assert "1 skipped, 50% OF ALL FILES: a.wav (shorter than 2.0 s); a lower" in sounds(tmp_path).text


def test_clips_that_are_long_enough_are_left_as_they_are() -> None:
    embedded = Path(str(files("l0prune_speech") / "assets" / "speech"))
    found, alone = sounds(embedded), find_clips([embedded], min_seconds=2.0)
    assert (found.sounds, found.text) == (alone.clips, alone.describe())
