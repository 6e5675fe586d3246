"""Laws of the batch stream: pure in its position, every clip once an epoch, within the seconds bound."""

import itertools
import multiprocessing
import os
import pickle
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from l0prune_speech.data.audio import SAMPLE_RATE, Clip, ClipSet, find_clips
from l0prune_speech.data.batching import AudioBatches, fixed_batches
from torch import Tensor

from l0prune.errors import ConfigError, DataError


def unread_clips(durations: list[float]) -> list[Clip]:
    """Clips of which only the lengths matter."""
    return [Clip(path=Path(f"{n}.wav"), sample_rate=8_000, frames=round(s * 8_000)) for n, s in enumerate(durations)]


@st.composite
def plans(draw: st.DrawFn) -> AudioBatches:
    """Settings over clips that plans never read."""
    durations = draw(st.lists(st.floats(0.1, 40.0), min_size=1, max_size=40))
    return AudioBatches(
        clips=unread_clips(durations),
        batch_seconds=draw(st.floats(0.5, 90.0)),
        max_seconds=draw(st.floats(0.5, 30.0)),
        seed=draw(st.integers(0, 2**40)),
    )


laws = settings(max_examples=60, deadline=None)
epochs = st.integers(0, 1_000)


class TestPlanLaws:
    @laws
    @given(plans(), epochs)
    def test_every_clip_comes_once_an_epoch(self, batches: AudioBatches, epoch: int) -> None:
        crops = [crop for batch in batches.plan(epoch) for crop in batch]
        assert sorted(crop.clip for crop in crops) == list(range(len(batches.clips)))
        assert all(crop.epoch == epoch for crop in crops)
        assert batches.batches_per_epoch(epoch) == len(batches.plan(epoch)) <= len(batches.clips)

    @laws
    @given(plans(), epochs)
    def test_a_batch_keeps_within_its_seconds_and_crops_to_its_shortest_clip(
        self, batches: AudioBatches, epoch: int
    ) -> None:
        cap_seconds = min(batches.max_seconds, batches.batch_seconds)
        for batch in batches.plan(epoch):
            wanted = [min(batches.clips[crop.clip].samples, int(cap_seconds * SAMPLE_RATE)) for crop in batch]
            assert batch
            assert sum(wanted) <= batches.batch_seconds * SAMPLE_RATE
            assert {crop.samples for crop in batch} == {min(wanted)}

    @laws
    @given(plans(), epochs, st.integers(1, 5), st.integers(1, 3))
    def test_the_same_batches_come_again_in_another_order(
        self, batches: AudioBatches, epoch: int, period: int, later: int
    ) -> None:
        again = replace(batches, crop_epochs=period)
        first, second = ([tuple(batch) for batch in again.plan(e)] for e in (epoch, epoch + later * period))
        assert sorted(first) == sorted(second)
        assert again.plan(epoch % period) == batches.plan(epoch % period)

    @laws
    @given(plans(), st.integers(1, 4), st.integers(1, 3))
    def test_processes_share_out_every_batch_of_the_parts(self, batches: AudioBatches, size: int, split: int) -> None:
        whole = replace(batches, batch_seconds=batches.batch_seconds / split)
        shares = [batches.share(rank=rank, world_size=size, split=split) for rank in range(size)]
        taken = [list(itertools.islice(share.schedule(0), 6)) for share in shares]
        expected = list(itertools.islice(whole.schedule(0), 6 * size))
        assert [batch for turn in zip(*taken, strict=True) for batch in turn] == expected

    @laws
    @given(plans(), epochs)
    def test_a_plan_depends_on_seed_and_epoch_alone(self, batches: AudioBatches, epoch: int) -> None:
        np.random.seed(epoch)
        torch.manual_seed(epoch)
        assert batches.plan(epoch) == replace(batches, workers=3, rank=1, world_size=2).plan(epoch)

    @laws
    @given(plans(), st.integers(0, 60))
    def test_skipping_batches_equals_starting_after_them(self, batches: AudioBatches, position: int) -> None:
        passed = itertools.islice(batches.schedule(0), position, position + 20)
        assert list(itertools.islice(batches.schedule(position), 20)) == list(passed)

    @laws
    @given(plans(), st.integers(1, 7), st.integers(0, 9))
    def test_ranks_share_one_sequence_without_gaps_or_repeats(
        self, batches: AudioBatches, world_size: int, position: int
    ) -> None:
        ranks = [replace(batches, rank=rank, world_size=world_size) for rank in range(world_size)]
        shares = [list(itertools.islice(rank.schedule(position), 12)) for rank in ranks]
        dealt = [batch for step in zip(*shares, strict=True) for batch in step]
        start = position * world_size
        assert dealt == list(itertools.islice(batches.schedule(start), 12 * world_size))

    def test_batches_are_full_and_of_similar_lengths(self) -> None:
        durations = np.random.default_rng(0).lognormal(2.3, 0.5, 2_000).clip(1, 35).tolist()
        batches = AudioBatches(clips=unread_clips(durations), batch_seconds=120.0)
        plan = batches.plan(0)
        read_seconds = sum(crop.samples for batch in plan for crop in batch) / SAMPLE_RATE
        assert read_seconds > 0.93 * batches.seconds_per_epoch
        assert len(plan) < 1.1 * batches.seconds_per_epoch / batches.batch_seconds

    def test_neighbours_and_order_change_between_epochs_and_seeds(self) -> None:
        clips = unread_clips(np.linspace(2, 14, 200).tolist())
        batches = AudioBatches(clips=clips, batch_seconds=40.0)

        def members(of: AudioBatches, epoch: int) -> list[frozenset[int]]:
            return [frozenset(crop.clip for crop in batch) for batch in of.plan(epoch)]

        first = set(members(batches, 0))
        assert len(first & set(members(batches, 1))) < 0.1 * len(first)
        assert len(first & set(members(replace(batches, seed=1), 0))) < 0.1 * len(first)
        mean_lengths = [np.mean([clips[n].samples for n in batch]) for batch in members(batches, 0)]
        assert abs(np.corrcoef(mean_lengths, np.arange(len(mean_lengths)))[0, 1]) < 0.5


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> ClipSet:
    """Nine ramps whose values tell the clip (tens) and, within it, the place (fraction of a second in units)."""
    folder = tmp_path_factory.mktemp("ramps")
    for number, seconds in enumerate((0.5, 0.52, 0.55, 0.6, 0.9, 1.0, 1.1, 1.15, 2.0)):
        ramp = (10 * number + np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE) / 100
        soundfile.write(folder / f"{number}.wav", ramp, SAMPLE_RATE, subtype="FLOAT")
    return find_clips([folder], min_seconds=0.1)


@pytest.fixture
def batches(found: ClipSet) -> AudioBatches:
    return AudioBatches(clips=found.clips, batch_seconds=2.4, max_seconds=1.5, seed=3)


def take(batches: AudioBatches, count: int, position: int = 0) -> list[Tensor]:
    stream = batches(position)
    taken = list(itertools.islice(stream, count))
    stream.close()  # type: ignore[attr-defined]
    return taken


def places(stream: list[Tensor]) -> list[tuple[int, float]]:
    """Clip number and start in seconds of every crop."""
    firsts = [round(100 * row[0].item(), 4) for batch in stream for row in batch]
    return [(int(first // 10), round(first % 10, 4)) for first in firsts]


def assert_same(left: list[Tensor], right: list[Tensor]) -> None:
    assert len(left) == len(right)
    assert all(torch.equal(one, other) for one, other in zip(left, right, strict=True))


class TestStream:
    def test_batches_hold_the_planned_crops(self, batches: AudioBatches) -> None:
        plan = batches.plan(0)
        stream = take(batches, len(plan))
        assert [(batch.dtype, *batch.shape) for batch in stream] == [
            (torch.float32, len(batch), batch[0].samples) for batch in plan
        ]
        assert [clip for clip, _ in places(stream)] == [crop.clip for batch in plan for crop in batch]
        # A ramp's slope shows that a crop is one unbroken piece of its clip.
        for batch in stream:
            torch.testing.assert_close(
                batch.diff(), torch.full_like(batch.diff(), 0.01 / SAMPLE_RATE), atol=2e-7, rtol=0
            )

    def test_crops_stay_inside_and_differ_between_epochs(self, batches: AudioBatches) -> None:
        counts = [batches.batches_per_epoch(epoch) for epoch in range(6)]
        starts = places(take(batches, sum(counts)))
        assert Counter(clip for clip, _ in starts) == dict.fromkeys(range(9), 6)
        longest = [start for clip, start in starts if clip == 8]
        assert len(set(longest)) == 6
        assert all(0 <= start <= 2.0 for start in longest)

    @pytest.mark.parametrize("workers", [0, 2])
    @pytest.mark.parametrize("position", [0, 3, 11])
    def test_workers_and_position_give_the_same_batches(
        self, batches: AudioBatches, workers: int, position: int
    ) -> None:
        whole = take(batches, 16)
        assert_same(take(replace(batches, workers=workers), 16 - position, position), whole[position:])

    @pytest.mark.parametrize("workers", [0, 1])
    def test_the_global_random_state_is_left_alone(self, batches: AudioBatches, workers: int) -> None:
        before = torch.get_rng_state()
        take(replace(batches, workers=workers), 5)
        assert torch.equal(torch.get_rng_state(), before)

    def test_closing_the_stream_stops_its_workers(self, batches: AudioBatches) -> None:
        running = len(multiprocessing.active_children())
        stream = replace(batches, workers=2)()
        next(stream)
        assert len(multiprocessing.active_children()) == running + 2
        stream.close()  # type: ignore[attr-defined]
        assert len(multiprocessing.active_children()) == running

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_to_the_process_group_leaves_the_workers_running(
        self, batches: AudioBatches, number: signal.Signals
    ) -> None:
        others, stream = set(multiprocessing.active_children()), replace(batches, workers=2)()
        before = list(itertools.islice(stream, 4))
        for worker in set(multiprocessing.active_children()) - others:
            assert worker.pid
            os.kill(worker.pid, number)
        after = list(itertools.islice(stream, 20))
        stream.close()  # type: ignore[attr-defined]
        assert_same(before + after, take(batches, 24))

    @pytest.mark.parametrize("workers", [0, 1])
    def test_a_clip_that_fails_is_named_in_one_line(self, found: ClipSet, tmp_path: Path, workers: int) -> None:
        broken = replace(found.clips[2], path=tmp_path / "broken.wav")
        broken.path.write_bytes(b"junk")
        clips = [*found.clips[:2], broken]
        batches = AudioBatches(clips=clips, batch_seconds=1.0, workers=workers)
        running = len(multiprocessing.active_children())
        with pytest.raises(DataError, match=r"broken\.wav") as caught:
            take(batches, 4)
        assert "\n" not in str(caught.value)
        assert len(multiprocessing.active_children()) == running

    def test_an_error_survives_the_way_from_a_worker(self) -> None:
        error = DataError("clip ends early", where="a.wav", got=1, expected=2, hint="replace it")
        copy = pickle.loads(pickle.dumps(error))
        assert str(copy) == str(error)
        assert vars(copy) == vars(error)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("batch_seconds", 0.0),
            ("batch_seconds", float("nan")),
            ("max_seconds", -1.0),
            ("max_seconds", float("inf")),
            ("seed", -1),
            ("workers", -1),
            ("rank", 1),
            ("rank", -1),
            ("world_size", 0),
        ],
    )
    def test_settings_out_of_range(self, batches: AudioBatches, name: str, value: float) -> None:
        with pytest.raises(ConfigError, match="rank" if name == "world_size" else name):
            replace(batches, **{name: value})

    def test_a_negative_position_is_refused_at_once(self, batches: AudioBatches) -> None:
        with pytest.raises(ConfigError, match="position"):
            batches(-1)

    def test_no_clips(self) -> None:
        with pytest.raises(DataError, match="no clips"):
            AudioBatches(clips=[], batch_seconds=1.0)


class TestFixedBatches:
    def test_every_clip_comes_once_from_its_start(self, found: ClipSet) -> None:
        fixed = fixed_batches(found.clips, batch_seconds=2.4, max_seconds=1.5)
        assert sorted(places(fixed)) == [(number, 0.0) for number in range(9)]
        assert [batch.shape[1] for batch in fixed] == sorted((batch.shape[1] for batch in fixed), reverse=True)
        assert_same(fixed, fixed_batches(found.clips, batch_seconds=2.4, max_seconds=1.5))

    def test_a_bad_clip_or_setting(self, found: ClipSet) -> None:
        gone = replace(found.clips[0], path=Path("gone.wav"))
        with pytest.raises(DataError, match=r"gone\.wav"):
            fixed_batches([gone], batch_seconds=1.0, max_seconds=1.0)
        with pytest.raises(ConfigError, match="batch_seconds"):
            fixed_batches(found.clips, batch_seconds=0.0, max_seconds=1.0)
