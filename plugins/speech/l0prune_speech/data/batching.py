"""Batches of similar-length crops, each a pure function of its position. Legend: B batch, samples at 16 kHz."""

import hashlib
import itertools
import math
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from l0prune.errors import ConfigError, DataError
from l0prune_speech.data.clips import SAMPLE_RATE
from l0prune_speech.data.windows import Sound, read_samples

# Lengths are blurred by this much before each epoch's sort: clips meet new neighbours, and cropping to the shortest of
# them loses about as much audio.
_LENGTH_BLUR = 0.05
_PREFETCHED_BATCHES = 4


class Crop(NamedTuple):
    """Which clip to read in which epoch, and how many samples of it."""

    epoch: int
    clip: int
    samples: int


@dataclass(frozen=True, kw_only=True, eq=False)
class AudioBatches:
    """An endless, resumable stream of batches; every clip comes once an epoch.

    Call it with a position to start there. One rank's position counts that rank's own batches: the batches of all
    epochs form one sequence, of which rank r takes numbers r, r + world_size, and so on.
    """

    clips: Sequence[Sound] = field(repr=False)
    batch_seconds: float
    """At most this much audio a batch, counted before cropping to the shortest clip."""
    max_seconds: float = 15.6
    """Longer clips count as, and are cropped to, this length (or `batch_seconds`, if that is less)."""
    seed: int = 0
    crop_epochs: int = 0
    """After this many epochs the same batches come again, in another order; 0 for never."""
    workers: int = 0
    """Decoding processes; 0 decodes in this one. The batches are the same."""
    pin_memory: bool = False
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not self.clips:
            raise DataError("no clips to batch", hint="check the data paths")
        _check_seconds(self.batch_seconds, self.max_seconds)
        counts = (("seed", self.seed), ("workers", self.workers), ("crop_epochs", self.crop_epochs))
        for name, value in counts:
            if value < 0:
                raise ConfigError("setting out of range", where=name, got=value, expected="0 or more")
        if not 0 <= self.rank < self.world_size:
            raise ConfigError("setting out of range", where="rank", got=self.rank, expected=f"0..{self.world_size - 1}")

    def __call__(self, position: int = 0) -> Iterator[Tensor]:
        """Stream batches without end; closing the iterator stops its workers.

        Args:
            position: How many of this rank's batches to pass over, as if they had been taken.

        Returns:
            Iterator over waveforms, float32 (B, samples).

        Raises:
            ConfigError: The position is negative.
            DataError: While iterating, when a clip cannot be decoded.
        """
        if position < 0:
            raise ConfigError("setting out of range", where="position", got=position, expected="0 or more")
        return self._stream(position)

    def share(self, *, rank: int, world_size: int, split: int) -> "AudioBatches":
        """One process's share of batches a `split`-th as long."""
        return replace(self, rank=rank, world_size=world_size, batch_seconds=self.batch_seconds / split)

    @property
    def seconds_per_epoch(self) -> float:
        """Audio in an epoch over all ranks, before cropping to the shortest clip of each batch."""
        return sum(self._lengths()) / SAMPLE_RATE

    def batches_per_epoch(self, epoch: int = 0) -> int:
        """Batches in an epoch over all ranks; epochs can differ by a few."""
        return len(self.plan(epoch))

    def plan(self, epoch: int) -> list[list[Crop]]:
        """The batches of an epoch, in order, over all ranks."""
        same = epoch % self.crop_epochs if self.crop_epochs else epoch
        generator = np.random.default_rng((self.seed, same, 0))
        lengths = np.array(self._lengths())
        blurred = lengths * generator.uniform(1 - _LENGTH_BLUR, 1 + _LENGTH_BLUR, len(lengths))
        batches = _fill(lengths, order=np.argsort(-blurred, kind="stable"), batch_seconds=self.batch_seconds)
        if same != epoch:
            generator = np.random.default_rng((self.seed, epoch, 0))
        generator.shuffle(batches)
        return [[Crop(same, clip, samples) for clip in batch] for batch, samples in batches]

    def _lengths(self) -> list[int]:
        return _capped_lengths(self.clips, batch_seconds=self.batch_seconds, max_seconds=self.max_seconds)

    def schedule(self, position: int) -> Iterator[list[Crop]]:
        """This rank's batches from a position on. Passing over an epoch costs its plan and no decoding."""
        skip = self.rank + position * self.world_size
        for epoch in itertools.count():
            batches = self.plan(epoch)
            yield from batches[skip :: self.world_size]
            # Where this rank's stride enters the next epoch, whether or not it has been in this one yet.
            skip = skip - len(batches) if skip >= len(batches) else (skip - len(batches)) % self.world_size

    def _stream(self, position: int) -> Iterator[Tensor]:
        loader = DataLoader(
            _Crops(self.clips, seed=self.seed),
            batch_sampler=self.schedule(position),
            num_workers=self.workers,
            collate_fn=_stack,
            pin_memory=self.pin_memory,
            worker_init_fn=leave_signals_to_parent,
            prefetch_factor=_PREFETCHED_BATCHES if self.workers else None,
            # Without its own generator the loader draws from the global one, and a resumed run would differ.
            generator=torch.Generator(),
        )
        try:
            for batch in loader:
                if isinstance(batch, DataError):
                    raise batch
                yield batch
        except (ConnectionError, EOFError) as error:
            with suppress(RuntimeError):
                # torch's own word of a process that died comes a moment after its connection breaks.
                time.sleep(1)
            hint = "memory may be short: lower speech.workers, then go on with --resume"
            raise DataError("a process that decodes audio died", hint=hint) from error


def clips_digest(clips: Iterable[Sound]) -> str:
    """Fingerprint of clips, by name and length."""
    return hashlib.sha256("\n".join(f"{clip.name} {clip.samples}" for clip in clips).encode()).hexdigest()


def fixed_batches(clips: Sequence[Sound], *, batch_seconds: float, max_seconds: float) -> list[Tensor]:
    """Read evaluation batches: every clip once, longest first, each cropped at its start.

    Args:
        clips: What to read.
        batch_seconds: At most this much audio a batch, counted before cropping to the shortest clip.
        max_seconds: Longer clips are cropped to this length (or `batch_seconds`, if that is less).

    Returns:
        Waveforms, each float32 (B, samples).

    Raises:
        ConfigError: A length is not a positive number.
        DataError: A clip cannot be decoded.
    """
    _check_seconds(batch_seconds, max_seconds)
    lengths = np.array(_capped_lengths(clips, batch_seconds=batch_seconds, max_seconds=max_seconds))
    batches = _fill(lengths, order=np.argsort(-lengths, kind="stable"), batch_seconds=batch_seconds)
    return [torch.stack([read_samples(clips[clip], 0, samples) for clip in batch]) for batch, samples in batches]


class _Crops(Dataset[Tensor | DataError]):
    """Reads crops; where each starts depends on seed, epoch and clip alone, so any worker reads the same one."""

    def __init__(self, clips: Sequence[Sound], *, seed: int) -> None:
        self.clips, self.seed = clips, seed

    def __getitem__(self, crop: Crop) -> Tensor | DataError:
        clip = self.clips[crop.clip]
        place = np.random.default_rng((self.seed, crop.epoch, 1 + crop.clip))
        start = int(place.integers(clip.samples - crop.samples, endpoint=True))
        try:
            return read_samples(clip, start, crop.samples)
        except DataError as error:
            # Returned, because the loader would wrap an error raised in a worker in that worker's traceback.
            return error


def _stack(crops: list[Tensor | DataError]) -> Tensor | DataError:
    """A batch (B, samples), or the first error among its crops."""
    waveforms = []
    for crop in crops:
        if isinstance(crop, DataError):
            return crop
        waveforms.append(crop)
    return torch.stack(waveforms)


def leave_signals_to_parent(worker: int) -> None:
    """A signal to the whole process group must not kill the workers while the parent saves its state."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _check_seconds(batch_seconds: float, max_seconds: float) -> None:
    for name, value in (("batch_seconds", batch_seconds), ("max_seconds", max_seconds)):
        if not (math.isfinite(value) and value * SAMPLE_RATE >= 1):
            raise ConfigError("setting out of range", where=name, got=value, expected="a positive number of seconds")


def _capped_lengths(clips: Sequence[Sound], *, batch_seconds: float, max_seconds: float) -> list[int]:
    """How many samples of each clip are wanted."""
    cap = math.floor(min(batch_seconds, max_seconds) * SAMPLE_RATE)
    return [min(clip.samples, cap) for clip in clips]


def _fill(lengths: np.ndarray, *, order: np.ndarray, batch_seconds: float) -> list[tuple[list[int], int]]:
    """Cut an order of clips into batches that are as full as `batch_seconds` allows.

    Args:
        lengths: Samples wanted of each clip (clips,), none above `batch_seconds`.
        order: Clip numbers (clips,).
        batch_seconds: At most this much audio a batch.

    Returns:
        For each batch its clip numbers and the length of its shortest clip.
    """
    ends, budget = np.cumsum(lengths[order]), math.floor(batch_seconds * SAMPLE_RATE)
    batches, start, used = [], 0, 0
    while start < len(order):
        stop = int(np.searchsorted(ends, used + budget, side="right"))
        batches.append((order[start:stop].tolist(), int(lengths[order[start:stop]].min())))
        start, used = stop, int(ends[stop - 1])
    return batches
