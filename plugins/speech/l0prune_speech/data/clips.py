"""What a clip is, a set of clips, and how a model cuts them into frames.

Frames count at a file's own rate, samples at 16 kHz.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from l0prune_speech.data.columns import Labels

SAMPLE_RATE = 16_000
_SHOWN = 5
_LOUD = 0.2
"""Share of the files from which on it is said in capitals that they are skipped."""
_SHORTER = "shorter than"


@dataclass(frozen=True, kw_only=True)
class Framing:
    """How a model cuts audio at 16 kHz into frames; two that do so alike hear the same frames in every clip."""

    shortest_samples: int
    """Of a clip that gives a frame."""
    step_samples: int
    """From a frame to the next."""

    @classmethod
    def of_convolutions(cls, convolutions: Sequence[Sequence[int]]) -> "Framing":
        """That of convolutions upon each other: (channels, kernel, stride) of each."""
        shortest, step = 1, 1
        for _channels, kernel, stride in convolutions:
            shortest, step = shortest + (kernel - 1) * step, step * stride
        return cls(shortest_samples=shortest, step_samples=step)

    @property
    def per_second(self) -> float:
        """Frames."""
        return SAMPLE_RATE / self.step_samples

    def frames(self, samples: int) -> int:
        """How many a clip gives."""
        return max(0, 1 + (samples - self.shortest_samples) // self.step_samples)


@dataclass(frozen=True, kw_only=True)
class Clip:
    """An audio file that can be read, with the length its header gives."""

    path: Path
    sample_rate: int
    """The file's own rate in Hz."""
    frames: int
    """Length at the file's own rate."""
    member: str = ""
    """Its name within the file, where it is a part of one."""
    offset: int | None = None
    """Of its first byte, where it is a file within this file; None for a file of its own."""
    size: int = 0
    """In bytes, of a file within this file."""
    first_frame: int = 0
    """Of the sound in the file, where the clip begins."""
    channel: int | None = None
    """None for the mean of all."""
    labels: Labels = ()
    """Those that stand beside it in a shard, a manifest or a dataset."""

    @property
    def name(self) -> str:
        """What it is called: its own name, or that within a larger file."""
        return self.member or self.path.name

    @property
    def where(self) -> str:
        """Its place, for messages."""
        return f"{self.path}: {self.member}" if self.member else str(self.path)

    @property
    def duration_seconds(self) -> float:
        """Length in seconds."""
        return self.frames / self.sample_rate

    @property
    def samples(self) -> int:
        """Length at 16 kHz: what a whole `read` returns."""
        return -(-self.frames * SAMPLE_RATE // self.sample_rate)


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A file that was found and left out."""

    path: Path
    reason: str
    member: str = ""

    @property
    def name(self) -> str:
        """Of the file, or within a larger file."""
        return self.member or self.path.name


@dataclass(frozen=True, kw_only=True)
class ClipSet:
    """What `find_clips` found, in order, and what it left out."""

    clips: tuple[Clip, ...]
    skipped: tuple[Skipped, ...] = ()
    short: tuple[Clip, ...] = ()
    """Those that are too short alone, where they are kept."""

    @property
    def seconds(self) -> float:
        """Total duration of the clips."""
        return sum(clip.duration_seconds for clip in self.clips)

    def skip(self, clips: Sequence[Clip], min_seconds: float) -> "ClipSet":
        """The same set, where of the short clips these are skipped and the others are used."""
        return replace(self, skipped=(*self.skipped, *(too_short(clip, min_seconds) for clip in clips)), short=())

    def describe(self, joined: int = 0) -> str:
        """One line: how many clips and minutes, what was skipped for which reason, and the setting that skipped it.

        Args:
            joined: How many other clips are used, which the share of the skipped ones counts too.
        """
        text = f"{counted(len(self.clips), 'clip')}, {self.seconds / 60:.1f} minutes"
        if not self.skipped:
            return text
        names = shortened([f"{file.name} ({file.reason})" for file in self.skipped])
        counts = f" ({reasons(self.skipped)})" if len(self.skipped) > _SHOWN else ""
        share = len(self.skipped) / (len(self.skipped) + len(self.clips) + joined)
        skipped = f"{len(self.skipped)} skipped" + (f", {share:.0%} OF ALL FILES" if share >= _LOUD else "")
        short = any(file.reason.startswith(_SHORTER) for file in self.skipped)
        hint = "; a lower --min-seconds (speech.min_seconds) takes shorter ones" if short else ""
        return f"{text}; {skipped}{counts}: {names}{hint}"


def too_short(clip: Clip, min_seconds: float) -> Skipped:
    """A clip left out because it does not last so many seconds."""
    return Skipped(path=clip.path, reason=f"{_SHORTER} {float(min_seconds)} s", member=clip.member)


def reasons(skipped: Sequence[Skipped]) -> str:
    """How many files were skipped for each reason, the most frequent first."""
    return ", ".join(f"{count} {reason}" for reason, count in Counter(file.reason for file in skipped).most_common())


def shortened(names: Sequence[str]) -> str:
    """The first few names and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def counted(number: int, noun: str) -> str:
    """A number with its noun: 1 clip, 2 clips."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
