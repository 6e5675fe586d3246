"""Clips of many people with units of every frame, in one file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, safe_open, save_file
from torch import Tensor

from l0bench.teacher.channels import through_channel
from l0prune import DataError, write_atomic

SAMPLE_RATE = 16_000
FRAME = 320
"""Samples a frame: 50 frames a second, as HuBERT's and Whisper's encoders have."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Sound, who speaks, and the units of its frames."""

    samples: Tensor
    """(S,) int16 at 16 kHz."""
    speaker: str
    """Clips of one speaker may be joined. Real speech: the language, since each has one speaker."""
    units: dict[str, Tensor]
    """Of each source of units: (S // 320,) int16."""

    @property
    def frames(self) -> int:
        """Whole frames."""
        return len(self.samples) // FRAME


def save_clips(clips: Sequence[Clip], file: Path, about: dict[str, object]) -> None:
    """Write all clips to one safetensors file; it is whole or absent.

    Args:
        clips: All of them, with the same sources of units.
        file: Where to.
        about: What the file's reader should know of where the clips and units come from (JSON).
    """
    tensors = {
        "samples": torch.cat([clip.samples for clip in clips]),
        "lengths": torch.tensor([len(clip.samples) for clip in clips]),
        **{f"units.{name}": torch.cat([clip.units[name] for clip in clips]) for name in clips[0].units},
    }
    text = {"speakers": json.dumps([clip.speaker for clip in clips]), "about": json.dumps(about)}
    write_atomic(file, partial(save_file, tensors, metadata=text))


def load_clips(file: Path) -> tuple[list[Clip], dict[str, object]]:
    """Read what `save_clips` wrote, and what it says of itself.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        tensors = load_file(file)
        with safe_open(file, "pt") as opened:
            text = opened.metadata()
        speakers, about = json.loads(text["speakers"]), json.loads(text["about"])
    except (OSError, ValueError, LookupError, TypeError, SafetensorError) as error:
        raise DataError(
            "cannot read the clips", where=file, got=error, hint="make them by benchmarks/teacher/make_units.py"
        ) from error
    lengths = tensors["lengths"].tolist()
    samples = tensors["samples"].split(lengths)
    frames = [length // FRAME for length in lengths]
    units = {name.removeprefix("units."): t.split(frames) for name, t in tensors.items() if name.startswith("units.")}
    clips = [
        Clip(samples=samples[i], speaker=speaker, units={name: parts[i] for name, parts in units.items()})
        for i, speaker in enumerate(speakers)
    ]
    return clips, about


def streams(clips: Sequence[Clip], frames: int, generator: np.random.Generator) -> list[list[Clip]]:
    """Clips of a speaker put after each other in random order, until each row has more than `frames` frames.

    Prompts are short, one to three seconds: alone, most could not fill a crop.
    """
    of_speaker: dict[str, list[Clip]] = {}
    for clip in clips:
        of_speaker.setdefault(clip.speaker, []).append(clip)
    rows = []
    for own in of_speaker.values():
        row: list[Clip] = []
        for index in generator.permutation(len(own)):
            row.append(own[index])
            if sum(clip.frames for clip in row) > frames:
                rows.append(row)
                row = []
    return rows


def crop(row: Sequence[Clip], frames: int, generator: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """A random part of a stream.

    Returns:
        Waveform (320 * frames + 80,) in -1 to 1, which HuBERT's convolutions turn into `frames` frames, and the units
        of each source, (frames,) int64.
    """
    samples = torch.cat([clip.samples[: clip.frames * FRAME] for clip in row])
    first = int(generator.integers(0, len(samples) // FRAME - frames))
    waveform = samples[first * FRAME : (first + frames) * FRAME + 80].float() / 32768
    units = {name: torch.cat([clip.units[name] for clip in row]) for name in row[0].units}
    return waveform, {name: found[first : first + frames].long() for name, found in units.items()}


def repeated(row: Sequence[Clip], frames: int, generator: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """A random part of a stream, heard twice: the second time through a channel of its own.

    What is masked in one half can be looked up in the other, by attention alone.

    Args:
        row: As `crop`'s.
        frames: At least 4.
        generator: As `crop`'s.

    Returns:
        As `crop`.
    """
    half = frames // 2
    waveform, units = crop(row, half, generator)
    first = waveform[: half * FRAME]
    again = torch.from_numpy(through_channel(first.numpy(), generator)).float()
    again *= first.abs().max() / again.abs().max().clamp_min(1e-9)
    rest = (frames - 2 * half) * FRAME + 80
    whole = torch.cat([first, again, again[:rest]])
    left = frames - 2 * half
    return whole, {name: torch.cat([found, found, found[:left]]) for name, found in units.items()}
