"""What is heard at once: clips split and joined, and batches that come again as they were."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from l0prune_speech.data import Clip, Piece, PieceBatches, find_clips, joined, piece, split
from l0prune_speech.data.pieces import GAP_SECONDS
from torch import Tensor


@pytest.fixture
def clips(tmp_path: Path) -> tuple[Clip, ...]:
    """Nine clips of 0.5 to 1.3 seconds; each holds a number of its own."""
    for number in range(9):
        soundfile.write(tmp_path / f"{number}.wav", np.full(8000 + 1600 * number, (number + 1) / 16), 16_000)
    return find_clips([tmp_path], min_seconds=0).clips


def stacked(waveforms: list[Tensor]) -> dict[str, Tensor]:
    return {"first": torch.tensor([float(waveform[0]) for waveform in waveforms])}


def batches(pieces: list[Piece], **changes: object) -> PieceBatches:
    given: dict[str, object] = {"pieces": pieces, "inputs": stacked, "batch_seconds": 3.0, "seed": 3}
    return PieceBatches(**{**given, **changes})  # type: ignore[arg-type]


def test_a_long_clip_is_split_into_equal_spans(clips: tuple[Clip, ...]) -> None:
    parts = split(clips[8], 0.5)
    assert [part.seconds for part in parts] == pytest.approx([1.3 / 3] * 3, abs=1e-4)
    assert torch.equal(torch.cat([part.read() for part in parts]), piece(clips[8]).read())
    assert split(clips[0], 0.5) == [piece(clips[0])]


def test_short_clips_are_joined_with_their_transcripts(clips: tuple[Clip, ...]) -> None:
    single = [piece(clip, f"word{number}") for number, clip in enumerate(clips)]
    windows = joined(single, 3.0, seed=0)
    assert all(window.seconds <= 3.0 for window in windows)
    assert sorted(str(window.label) for window in windows) != sorted(f"word{n}" for n in range(9))
    said = [word for window in windows for word in str(window.label).split()]
    assert sorted(said) == [f"word{number}" for number in range(9)]
    window = max(windows, key=lambda one: len(one.parts))
    heard = window.read()
    assert len(heard) == round(window.seconds * 16_000)
    first = round(window.parts[0].seconds * 16_000)
    assert not heard[first : first + round(GAP_SECONDS * 16_000)].any()
    number = int(str(window.label).split()[1].removeprefix("word"))
    assert heard[-1] != 0
    assert heard[first + round(GAP_SECONDS * 16_000)] == (number + 1) / 16


def test_batches_come_again_in_another_order(clips: tuple[Clip, ...]) -> None:
    pieces = [piece(clip) for clip in clips]
    made = batches(pieces)
    count = len(made.plan())
    assert sorted(number for batch in made.plan() for number in batch) == list(range(9))
    for batch in made.plan():
        assert len(batch) * max(pieces[number].seconds for number in batch) <= 3.0
    first, second = ([batch.name for batch in islice(made(position), count)] for position in (0, count))
    assert first != second
    assert sorted(first) == sorted(second)
    # From anywhere on, as if what is before had been taken; with workers, too.
    whole = [batch.name for batch in islice(made(0), 2 * count)]
    assert [batch.name for batch in islice(made(count - 1), 3)] == whole[count - 1 : count + 2]
    assert [batch.name for batch in islice(batches(pieces, workers=1)(1), 3)] == whole[1:4]
    shares = [made.share(rank=rank, world_size=2, split=1)(0) for rank in (0, 1)]
    assert [next(shares[number % 2]).name for number in range(count)] == whole[:count]


def test_a_batch_of_fixed_windows_counts_them_in_full(clips: tuple[Clip, ...]) -> None:
    made = batches([piece(clip) for clip in clips], window_seconds=1.5)
    assert [len(batch) for batch in made.plan()] == [2, 2, 2, 2, 1]
    assert [len(batch.inputs["first"]) for batch in made.all()] == [2, 2, 2, 2, 1]
