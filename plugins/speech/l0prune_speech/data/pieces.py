"""What a network with a head hears at once, and batches of it that stay the same from epoch to epoch.

A clip with a transcript cannot be cropped; clips without labels are split, and short ones can be joined. As batches
come again as they were, what the teacher says of one is computed once.

Legend: B pieces, S samples at 16 kHz.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from l0prune.errors import DataError
from l0prune_speech.data.audio import read
from l0prune_speech.data.batching import leave_signals_to_parent
from l0prune_speech.data.clips import SAMPLE_RATE, Clip
from l0prune_speech.data.windows import GAP_SECONDS, Sound, Window

_PREFETCHED = 2


@dataclass(frozen=True, kw_only=True)
class Part:
    """A clip, or a span of one."""

    clip: Clip
    start_seconds: float = 0.0
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What is heard at once."""

    parts: tuple[Part, ...]
    label: str | None = None
    """Those of its parts, with spaces between them."""
    answer: tuple[int, ...] | None = None
    """The label in the head's numbers."""

    @property
    def seconds(self) -> float:
        """Length, with the gaps."""
        return sum(part.seconds for part in self.parts) + GAP_SECONDS * (len(self.parts) - 1)

    @property
    def name(self) -> str:
        """Of its clips."""
        return "+".join(part.clip.name for part in self.parts)

    def read(self) -> Tensor:
        """Waveform (S,)."""
        gap = torch.zeros(round(GAP_SECONDS * SAMPLE_RATE))
        parts = (
            read(part.clip, start_seconds=part.start_seconds, duration_seconds=part.seconds) for part in self.parts
        )
        return torch.cat([tensor for part in parts for tensor in (part, gap)][:-1])


def piece(sound: Sound, label: str | None = None) -> Piece:
    """A whole clip, or a window of several."""
    clips = sound.clips if isinstance(sound, Window) else (sound,)
    return Piece(parts=tuple(Part(clip=clip, seconds=clip.duration_seconds) for clip in clips), label=label)


def split(clip: Clip, longest_seconds: float) -> list[Piece]:
    """A clip in spans that are equal to a sample, none longer than that."""
    count = max(1, -int(-clip.duration_seconds // longest_seconds))
    if count == 1:
        return [piece(clip)]
    edges = [round(clip.samples * i / count) / SAMPLE_RATE for i in range(count + 1)]
    return [
        Piece(parts=(Part(clip=clip, start_seconds=start, seconds=end - start),))
        for start, end in itertools.pairwise(edges)
    ]


def joined(pieces: Sequence[Piece], longest_seconds: float, seed: int) -> list[Piece]:
    """Pieces one after the other in a random order, as many as fit: fewer and fuller windows.

    Args:
        pieces: All with labels, or none.
        longest_seconds: Of a window.
        seed: Of the order.
    """
    found: list[Piece] = []
    waiting: list[Piece] = []
    for number in np.random.default_rng((seed, 7)).permutation(len(pieces)):
        new = pieces[number]
        if waiting and sum(one.seconds + GAP_SECONDS for one in waiting) + new.seconds > longest_seconds:
            found.append(_join(waiting))
            waiting = []
        waiting.append(new)
    return [*found, _join(waiting)] if waiting else found


def _join(pieces: Sequence[Piece]) -> Piece:
    labels = [one.label for one in pieces]
    label = None if None in labels else " ".join(map(str, labels))
    return Piece(parts=tuple(part for one in pieces for part in one.parts), label=label)


@dataclass(frozen=True, kw_only=True, eq=False)
class PieceBatch:
    """What a network is given."""

    name: str
    """Tells it from every other of a run."""
    inputs: Mapping[str, Tensor] = field(repr=False)
    answers: tuple[tuple[int, ...], ...] | None
    seconds: float
    """Of audio, without padding."""
    longest_seconds: float
    size: int


Inputs = Callable[[Sequence[Tensor]], dict[str, Tensor]]


@dataclass(frozen=True, kw_only=True, eq=False)
class PieceBatches:
    """An endless, resumable stream of batches: the same ones each epoch, in another order.

    Call it with a position to start there, as `AudioBatches`.
    """

    pieces: Sequence[Piece] = field(repr=False)
    inputs: Inputs = field(repr=False)
    """What a network makes of waveforms."""
    batch_seconds: float
    """At most this much audio a batch, padding counted."""
    window_seconds: float | None = None
    """What each piece is padded to."""
    seed: int = 0
    workers: int = 0
    rank: int = 0
    world_size: int = 1
    name: str = "train"

    def __post_init__(self) -> None:
        if not self.pieces:
            raise DataError("no clips to batch", hint="check the data paths")

    def __call__(self, position: int = 0) -> Iterator[PieceBatch]:
        """Batches without end, after `position` of this rank's."""
        loader = DataLoader(
            _Batches(self),
            sampler=self._schedule(position),
            batch_size=None,
            num_workers=self.workers,
            worker_init_fn=leave_signals_to_parent,
            prefetch_factor=_PREFETCHED if self.workers else None,
            generator=torch.Generator(),
        )
        for batch in loader:
            if isinstance(batch, DataError):
                raise batch
            yield batch

    def share(self, *, rank: int, world_size: int, split: int) -> "PieceBatches":
        """One process's share of batches a `split`-th as long."""
        return replace(self, rank=rank, world_size=world_size, batch_seconds=self.batch_seconds / split)

    def plan(self) -> list[list[int]]:
        """The numbers of the pieces of each batch: of similar length, as many as fit."""
        blur = np.random.default_rng((self.seed, 1)).uniform(0.95, 1.05, len(self.pieces))
        lengths = [self.window_seconds or one.seconds for one in self.pieces]
        order = np.argsort(-np.array(lengths) * blur, kind="stable")
        batches: list[list[int]] = []
        longest = 0.0
        for number in map(int, order):
            longest = max(longest, lengths[number]) if batches else lengths[number]
            if not batches or (len(batches[-1]) + 1) * longest > self.batch_seconds:
                batches.append([])
                longest = lengths[number]
            batches[-1].append(number)
        return batches

    def all(self) -> list[PieceBatch]:
        """Every batch once."""
        made = _Batches(self)
        found = []
        for number in range(len(made)):
            batch = made[number]
            if isinstance(batch, DataError):
                raise batch
            found.append(batch)
        return found

    def _schedule(self, position: int) -> Iterator[int]:
        count = len(self.plan())
        skip = self.rank + position * self.world_size
        for epoch in itertools.count():
            order = np.random.default_rng((self.seed, epoch, 2)).permutation(count)
            yield from map(int, order[skip :: self.world_size])
            skip = skip - count if skip >= count else (skip - count) % self.world_size


class _Batches(Dataset[PieceBatch | DataError]):
    """Makes batches by number."""

    def __init__(self, batches: PieceBatches) -> None:
        self.batches, self.plan = batches, batches.plan()

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, number: int) -> PieceBatch | DataError:
        pieces = [self.batches.pieces[i] for i in self.plan[number]]
        try:
            inputs = self.batches.inputs([one.read() for one in pieces])
        except DataError as error:
            # Returned, because the loader would wrap an error raised in a worker in that worker's traceback.
            return error
        answers = [one.answer for one in pieces]
        return PieceBatch(
            name=f"{self.batches.name} {number} of {len(self.plan)}",
            inputs=inputs,
            answers=None if None in answers else tuple(answers),  # type: ignore[arg-type]
            seconds=sum(one.seconds for one in pieces),
            longest_seconds=max(one.seconds for one in pieces),
            size=len(pieces),
        )
