"""Labelled clips, and the sets that a task trains and tests on."""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

from torch import Tensor

from l0prune import DataError
from l0prune_speech.data import SAMPLE_RATE, Clip, read

Label = str | tuple[str, ...]
"""A class, or the phones that are said."""
Pair = tuple[str, str, bool]
"""Names of two segments to compare, and whether they are of one speaker."""
Symbol = TypeVar("Symbol", bound=Hashable)
_TOLERANCE_SECONDS = 0.001


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A clip, or a part of one."""

    clip: Clip
    start_seconds: float = 0.0
    duration_seconds: float

    @property
    def name(self) -> str:
        """Tells it from every other: file and place."""
        return f"{self.clip.path}@{self.start_seconds:.4f}"

    @property
    def end_seconds(self) -> float:
        """Where it ends in the clip."""
        return self.start_seconds + self.duration_seconds

    @property
    def samples(self) -> int:
        """Length at 16 kHz: what `read` returns."""
        start = min(round(self.start_seconds * SAMPLE_RATE), self.clip.samples)
        return min(round(self.duration_seconds * SAMPLE_RATE), self.clip.samples - start)

    def read(self) -> Tensor:
        """Waveform at 16 kHz, (samples,)."""
        return read(self.clip, start_seconds=self.start_seconds, duration_seconds=self.duration_seconds)


def segment(clip: Clip, *, start_seconds: float = 0.0, duration_seconds: float | None = None) -> Segment:
    """A clip, or a part of one that lies within it.

    Raises:
        DataError: It does not.
    """
    rest = clip.duration_seconds - start_seconds
    duration = rest if duration_seconds is None else duration_seconds
    if start_seconds < 0 or not 1 / SAMPLE_RATE <= duration <= rest + _TOLERANCE_SECONDS:
        raise DataError(
            "labels do not match the audio",
            where=clip.path,
            got=f"{duration:g} s from {start_seconds:g} s",
            expected=f"a part of its {clip.duration_seconds:g} s",
        )
    return Segment(clip=clip, start_seconds=start_seconds, duration_seconds=min(duration, rest))


@dataclass(frozen=True, kw_only=True)
class Example:
    """What is heard and what should be found."""

    segment: Segment
    label: Label
    group: str
    """Whose share is kept when a set is thinned: the class, or the speaker."""


@dataclass(frozen=True, kw_only=True)
class LabelledSet:
    """What a task is trained and tested on; the order of the examples says nothing.

    Raises:
        DataError: There is nothing to train or to test on, or a segment comes twice in a split.
    """

    name: str
    """The data it comes from, for messages."""
    train: tuple[Example, ...]
    test: tuple[Example, ...]
    trials: tuple[Pair, ...] | None = None
    """Of test segments; every pair by default."""
    notes: tuple[str, ...] = ()
    """What to say of it: what was left out, for example."""

    def __post_init__(self) -> None:
        for split in ("train", "test"):
            if not getattr(self, split):
                raise DataError(f"no clips to {split} on", where=self.name)
            # The same clips in the same order, however they were found.
            ordered = sorted(getattr(self, split), key=lambda example: example.segment.name)
            for one, other in pairwise(ordered):
                if one.segment.name == other.segment.name:
                    raise DataError("clip is listed twice", where=one.segment.name, hint="list it once")
            object.__setattr__(self, split, tuple(ordered))

    @property
    def seconds(self) -> float:
        """Audio in both splits."""
        return sum(example.segment.duration_seconds for example in (*self.train, *self.test))


def numbered(labels: Iterable[Symbol]) -> dict[Symbol, int]:
    """Numbers of the different symbols (classes or phones), in sorted order."""
    return {label: number for number, label in enumerate(sorted(set(labels), key=str))}
