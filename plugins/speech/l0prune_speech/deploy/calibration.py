"""Audio on which an encoder in int8 is calibrated, and other audio on which it is compared."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import as_file, files
from os.path import isfile
from pathlib import Path

from torch import Tensor

from l0prune import DataError
from l0prune.support import read_toml
from l0prune_speech.data import SAMPLE_RATE, find_clips, read

LEAST_SECONDS = 10.0
"""Ranges of activations that are found on less say little of other audio."""
_MOST_SECONDS, _CLIP_SECONDS = 80.0, 10.0
_SHORTEST = 0.5
_EACH = 4
"""One clip in so many is kept for the comparison."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Clips (samples,) of speech."""

    clips: Sequence[Tensor]
    held_out: Sequence[Tensor]
    source: str
    """Where they are from, in words."""

    @property
    def seconds(self) -> float:
        """Of the clips that scales are found on."""
        return sum(len(clip) for clip in self.clips) / SAMPLE_RATE


def find_calibration(source: str, given: Sequence[str]) -> Calibration:
    """Audio to calibrate on: what is given, else the data of the run, else the embedded clips.

    Args:
        source: A run directory, or anything that is a teacher.
        given: Files, folders, manifests or shards, as `--data` takes them.

    Raises:
        DataError: There is no audio, or less than 10 s.
    """
    pieces, words = list[Tensor](), "the embedded clips"
    if given:
        pieces, words = _pieces([Path(path) for path in given]), ", ".join(map(str, given))
    elif own := _of_run(source):
        # They may be gone, or be a list with transcripts: the embedded clips do as well, and a note names them.
        with suppress(DataError):
            pieces, words = _pieces([Path(path) for path in own]), ", ".join(own)
    if not pieces:
        with as_file(files("l0prune_speech") / "assets" / "speech") as folder:
            pieces = _pieces([folder])
    if len(pieces) == 1:
        half = len(pieces[0]) // 2
        pieces = [pieces[0][:half], pieces[0][half:]]
    held_out = pieces[1::_EACH]
    clips = [clip for number, clip in enumerate(pieces) if number % _EACH != 1]
    return Calibration(clips=clips, held_out=held_out, source=words)


def _of_run(source: str) -> list[str]:
    """The training data that a run names."""
    settings = Path(source) / "config.toml"
    if not isfile(settings):
        return []
    return [str(path) for path in read_toml(settings).get("speech", {}).get("data", ())]


def _pieces(paths: Sequence[Path]) -> list[Tensor]:
    """Beginnings of clips that are evenly spaced over all there are."""
    clips = find_clips(paths, min_seconds=_SHORTEST).clips
    usable = [min(clip.duration_seconds, _CLIP_SECONDS) for clip in clips]
    if (total := sum(usable)) < LEAST_SECONDS:
        where = ", ".join(map(str, paths))
        raise DataError(
            "not enough audio to calibrate on",
            where=where,
            got=f"{total:.1f} s in clips of at most {_CLIP_SECONDS:g} s",
            expected=f"{LEAST_SECONDS:g} s or more",
            hint="onnx-int8-dynamic needs no calibration",
        )
    stride = max(1, round(total / _MOST_SECONDS))
    return [
        read(clip, duration_seconds=seconds) for clip, seconds in zip(clips[::stride], usable[::stride], strict=True)
    ]
