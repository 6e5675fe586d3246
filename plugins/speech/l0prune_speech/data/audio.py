"""Clips: found under paths, looked at, and decoded. Frames count at a file's own rate, samples at 16 kHz."""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from l0prune.errors import DataError
from l0prune_speech.data.clips import SAMPLE_RATE, Clip, ClipSet, Skipped, counted, reasons, shortened, too_short
from l0prune_speech.data.containers import Slice, Source
from l0prune_speech.data.sources import SUFFIXES, UNREAD, sources_under

# torchaudio's defaults, spelled out because the margin around a partial decode depends on them.
_FILTER_WIDTH, _ROLLOFF = 6, 0.99
# The resampling kernel grows with the reduced ratio: a 16001 Hz file would need gigabytes and seconds a clip.
_MAX_RATIO = 1000
# These decoders carry state from packet to packet, and libsndfile lands wrongly in a Vorbis file's last page: starting
# early and dropping the lead gives the samples of a whole decode, and decoding is hundreds of times real time.
_LOSSY, _LEAD_SECONDS = ("OGG", "MP3"), 10
_DECODE_ERRORS = (soundfile.SoundFileError, OSError, UnicodeError)
_BLOCK_FRAMES = 2**20
_REMOVE = "replace the file, or begin anew without it"


def find_clips(paths: Sequence[Path], *, min_seconds: float, keep_short: bool = False) -> ClipSet:
    """Find every usable clip under some paths; a file reached twice counts once.

    Args:
        paths: Audio files, folders (searched recursively, in sorted order), tsv manifests (the root folder on the
            first line, then `relative_path<TAB>num_samples` lines), shards of WebDataset (tar), manifests of lhotse
            with recordings or cuts (jsonl, jsonl.gz), or datasets of Hugging Face ("datasets:NAME?split=train").
        min_seconds: Shorter clips are skipped.
        keep_short: Give them apart instead, as `short`.

    Returns:
        The clips in the order of `paths`, and the files that were skipped.

    Raises:
        DataError: A path is missing or holds no audio, a manifest is malformed, or no usable clip remains.
    """
    sources: dict[tuple[object, ...], Source] = {}
    for path in map(Path, paths):
        for source in sources_under(path):
            # Unlike Path.resolve, for a link that leads to itself too.
            place = os.path.realpath(source.path), source.name, source.start_seconds, source.channel
            sources.setdefault(place, source)
    found = [_probe(source) for source in sources.values()]
    readable = [file for file in found if isinstance(file, Clip)]
    short = tuple(clip for clip in readable if clip.duration_seconds < min_seconds)
    clips = ClipSet(
        clips=tuple(clip for clip in readable if clip.duration_seconds >= min_seconds),
        skipped=tuple(file for file in found if isinstance(file, Skipped)),
    )
    if keep_short and short:
        return replace(clips, short=short)
    checked = [_long_enough(file, min_seconds) if isinstance(file, Clip) else file for file in found]
    clips = replace(clips, skipped=tuple(file for file in checked if isinstance(file, Skipped)))
    check_some(clips, paths, min_seconds, longest=max((clip.duration_seconds for clip in short), default=0.0))
    return clips


def check_some(found: ClipSet, paths: Sequence[Path], min_seconds: float, longest: float = 0.0) -> None:
    """Raise a `DataError` where no clip is left.

    Args:
        found: What was found below the paths.
        paths: Where.
        min_seconds: What a clip must last.
        longest: Of the clips that are too short, in seconds.
    """
    if found.clips:
        return
    # Rounded down, so that a clip just under the bound does not read as if it met it.
    too_short = f"the longest is {math.floor(longest * 100) / 100:g} s: lower --min-seconds (speech.min_seconds)"
    raise DataError(
        "no usable clips",
        where=shortened([str(path) for path in paths]) or None,
        got=f"{counted(len(found.skipped), 'file')}{': ' if found.skipped else ''}{reasons(found.skipped)}",
        expected=f"at least one clip of {float(min_seconds)} s or more",
        hint=too_short if longest else f"check the files; what is read ends in {', '.join(SUFFIXES)}",
    )


def read(clip: Clip, *, start_seconds: float = 0.0, duration_seconds: float | None = None) -> Tensor:
    """Decode a clip, or the part of it asked for, as 16 kHz mono.

    A part equals the same slice of the whole clip. As with a slice, what lies beyond the end is left out.

    Args:
        clip: What to decode.
        start_seconds: Where to start, rounded to a 16 kHz sample.
        duration_seconds: How much to read, rounded to a 16 kHz sample; None reads to the end.

    Returns:
        Waveform, float32 (samples,), the channels mixed down by their mean.

    Raises:
        DataError: The file cannot be decoded there, ends early, or holds values that are not finite.
    """
    start = min(max(round(start_seconds * SAMPLE_RATE), 0), clip.samples)
    stop = clip.samples if duration_seconds is None else start + max(round(duration_seconds * SAMPLE_RATE), 0)
    stop = min(stop, clip.samples)
    if start == stop:
        return torch.zeros(0)
    if clip.sample_rate == SAMPLE_RATE:
        return _decode(clip, start, stop)
    from torchaudio.functional import resample

    # `old` frames become `new` samples, phase for phase, so a decode that starts on a block boundary gives the whole
    # clip's samples; the filter reaches `reach` blocks to either side.
    old, new = _ratio(clip.sample_rate)
    reach = math.ceil(math.ceil(_FILTER_WIDTH * old / (min(old, new) * _ROLLOFF)) / old)
    first_block, end_block = max(0, start // new - reach), (stop - 1) // new + 1 + reach
    waveform = _decode(clip, first_block * old, min(end_block * old, clip.frames))
    # Zeros to the block's end: torchaudio takes the output length in float32, which can lose the last samples.
    waveform = torch.nn.functional.pad(waveform, (0, (end_block - first_block) * old - len(waveform)))
    resampled = resample(waveform, old, new, lowpass_filter_width=_FILTER_WIDTH, rolloff=_ROLLOFF)
    return resampled[start - first_block * new : stop - first_block * new].clone()


def _decode(clip: Clip, start_frame: int, stop_frame: int) -> Tensor:
    """A channel, or the mean of all, at the file's own rate, float32 (stop_frame - start_frame,)."""
    start_frame, stop_frame = start_frame + clip.first_frame, stop_frame + clip.first_frame
    try:
        with _opened(clip.path, clip.offset, clip.size) as file:
            lead = _LEAD_SECONDS * clip.sample_rate if file.format in _LOSSY else 0
            seek_frame = max(0, start_frame - lead) if file.seekable() else 0
            if seek_frame:
                file.seek(seek_frame)
            # In pieces: a header may claim any length.
            blocks = [_mono(block, clip.channel) for block in _blocks(file, stop_frame - seek_frame)]
            frames = np.concatenate(blocks)[start_frame - seek_frame :]
    except _DECODE_ERRORS as error:
        raise DataError("clip cannot be decoded", where=clip.where, got=error, hint=_REMOVE) from error
    if len(frames) < stop_frame - start_frame:
        got, expected = f"{start_frame + len(frames)} frames", f"{clip.first_frame + clip.frames} as its header says"
        raise DataError("clip ends early", where=clip.where, got=got, expected=expected, hint=_REMOVE)
    waveform = torch.from_numpy(frames)
    if not waveform.isfinite().all():
        raise DataError("clip holds values that are not finite", where=clip.where, hint=_REMOVE)
    return waveform


@contextmanager
def _opened(path: Path, offset: int | None, size: int) -> Iterator[soundfile.SoundFile]:
    """A file of sound, or one within a larger file."""
    with ExitStack() as stack:
        whole: Any = path
        if offset is not None:
            whole = Slice(stack.enter_context(path.open("rb")), offset, size)
        yield stack.enter_context(soundfile.SoundFile(whole))


def _mono(block: np.ndarray, channel: int | None) -> np.ndarray:
    """A block of frames (frames, channels) as one channel (frames,)."""
    return block.mean(axis=1) if channel is None else block[:, channel]


def _blocks(file: soundfile.SoundFile, frames: int) -> Iterator[np.ndarray]:
    """The next `frames` of a file, or all there are, in blocks (frames, channels) of float32."""
    while True:
        block = file.read(min(frames, _BLOCK_FRAMES), dtype="float32", always_2d=True)
        yield block
        frames -= len(block)
        if frames <= 0 or len(block) < _BLOCK_FRAMES:
            return


def _ratio(sample_rate: int) -> tuple[int, int]:
    """How many frames become how many samples, in lowest terms."""
    common = math.gcd(sample_rate, SAMPLE_RATE)
    return sample_rate // common, SAMPLE_RATE // common


def _probe(source: Source) -> Clip | Skipped:
    """Read a header."""
    path, member = source.path, source.name
    if reason := source.refused or _why_unread(path):
        return Skipped(path=path, reason=reason, member=member)
    try:
        with _opened(path, source.offset, source.size) as file:
            rate, frames, channels = file.samplerate, file.frames, file.channels
    except _DECODE_ERRORS:
        return Skipped(path=path, reason=_why_unreadable(path), member=member)
    first = min(max(0, round(source.start_seconds * rate)), max(0, frames))
    if source.duration_seconds is not None:
        frames = min(frames, first + round(source.duration_seconds * rate))
    if frames <= first:
        return Skipped(path=path, reason="zero length", member=member)
    if max(_ratio(rate)) > _MAX_RATIO:
        return Skipped(path=path, reason=f"cannot be resampled from {rate} Hz", member=member)
    if source.channel is not None and not 0 <= source.channel < channels:
        return Skipped(path=path, reason=f"has no channel {source.channel}", member=member)
    return Clip(
        path=path,
        sample_rate=rate,
        frames=frames - first,
        member=member,
        offset=source.offset,
        size=source.size,
        first_frame=first,
        channel=source.channel,
        labels=source.labels,
    )


def _why_unread(path: Path) -> str:
    """Why a file's header is not looked at; nothing where it is."""
    try:
        if path.is_symlink() and not path.is_file():
            return "link to a folder, which is not followed" if path.is_dir() else "dangling link"
    except OSError as error:
        # A manifest may list names that are longer than any.
        return (error.strerror or "cannot be opened").lower()
    return f"{path.suffix.lower()} is not read" if path.suffix.lower() in UNREAD else ""


def _long_enough(clip: Clip, min_seconds: float) -> Clip | Skipped:
    return clip if clip.duration_seconds >= min_seconds else too_short(clip, min_seconds)


def _why_unreadable(path: Path) -> str:
    """Why the decoder refused a file; its own messages call any broken mp3 a missing file."""
    try:
        with path.open("rb") as file:
            return "not readable as audio" if file.read(1) else "zero length"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return (error.strerror or "cannot be opened").lower()
