"""Short clips joined to windows, which are read and batched as clips are.

A set may hold many clips that are too short to learn from alone. They are joined, with silence between them, until a
window is as long as a clip must be.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from l0prune_speech.data.audio import check_some, find_clips, read
from l0prune_speech.data.clips import SAMPLE_RATE, Clip, ClipSet

GAP_SECONDS = 0.3
"""Of silence between two clips that are joined."""
_GAP = round(GAP_SECONDS * SAMPLE_RATE)


@dataclass(frozen=True, kw_only=True)
class Window:
    """Clips that are heard one after the other, as if they were one."""

    clips: tuple[Clip, ...]

    @property
    def name(self) -> str:
        """Of its clips."""
        return "+".join(clip.name for clip in self.clips)

    @property
    def samples(self) -> int:
        """Length at 16 kHz, with the gaps."""
        return sum(clip.samples for clip in self.clips) + _GAP * (len(self.clips) - 1)

    @property
    def duration_seconds(self) -> float:
        """Length in seconds, with the gaps."""
        return self.samples / SAMPLE_RATE

    def read(self) -> Tensor:
        """Waveform (samples,)."""
        return torch.cat([part for clip in self.clips for part in (read(clip), torch.zeros(_GAP))][:-1])


Sound = Clip | Window
"""What is heard at once."""


@dataclass(frozen=True, kw_only=True)
class Sounds:
    """What an encoder learns from, and a line about it."""

    sounds: tuple[Sound, ...]
    text: str


def read_samples(sound: Sound, start: int, samples: int) -> Tensor:
    """A part of a clip or a window.

    Args:
        sound: What is read.
        start: The first sample at 16 kHz.
        samples: How many.

    Returns:
        Waveform, float32 (samples,).
    """
    if isinstance(sound, Window):
        # A window is a few seconds long: it is read whole, so that every part of it has the same bits.
        return sound.read()[start : start + samples].clone()
    return read(sound, start_seconds=start / SAMPLE_RATE, duration_seconds=samples / SAMPLE_RATE)


def join(clips: Sequence[Clip], *, seconds: float, seed: int) -> tuple[list[Window], list[Clip]]:
    """Join short clips in a random order until each window is long enough.

    Args:
        clips: Each shorter than that.
        seconds: A window's length, at least.
        seed: Of the order; the same one gives the same windows.

    Returns:
        The windows, and the clips that are left where all of them together are too short.
    """
    windows: list[Window] = []
    waiting: list[Clip] = []
    for number in np.random.default_rng((seed, 11)).permutation(len(clips)):
        waiting.append(clips[number])
        window = Window(clips=tuple(waiting))
        if window.duration_seconds >= seconds:
            windows.append(window)
            waiting = []
    if waiting and windows:
        windows[-1] = replace(windows[-1], clips=(*windows[-1].clips, *waiting))
        waiting = []
    return windows, waiting


def find_sounds(paths: Sequence[Path], *, min_seconds: float, short_clips: str, seed: int) -> Sounds:
    """Clips, and windows of those that are too short.

    Args:
        paths: As of `find_clips`.
        min_seconds: Shorter clips are joined or skipped.
        short_clips: "join" or "skip".
        seed: Of the order in which clips are joined.

    Returns:
        Clips in the order of `paths`, then windows.

    Raises:
        DataError: As of `find_clips`.
    """
    if short_clips == "skip":
        found = find_clips(paths, min_seconds=min_seconds)
        return Sounds(sounds=found.clips, text=found.describe())
    found = find_clips(paths, min_seconds=min_seconds, keep_short=True)
    windows, left = join(found.short, seconds=min_seconds, seed=seed)
    rest = found.skip(left, min_seconds)
    if not windows:
        check_some(rest, paths, min_seconds, max((clip.duration_seconds for clip in left), default=0.0))
    return Sounds(sounds=(*rest.clips, *windows), text=_described(rest, windows, min_seconds))


def _described(found: ClipSet, windows: Sequence[Window], min_seconds: float) -> str:
    """What was found, and how many clips are in how many windows."""
    if not windows:
        return found.describe()
    joined = sum(len(window.clips) for window in windows)
    minutes = sum(window.duration_seconds for window in windows) / 60
    note = f"{joined} shorter than {float(min_seconds)} s joined into {len(windows)} window"
    return f"{found.describe(joined)}; {note}{'' if len(windows) == 1 else 's'}, {minutes:.1f} minutes"
