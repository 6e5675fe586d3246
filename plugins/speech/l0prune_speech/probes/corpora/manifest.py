"""Labelled speech described by a `manifest.json`: the embedded set, and what `make_labelled.py` makes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

from l0prune import DataError
from l0prune_speech.data import SUFFIXES, Clip, find_clips
from l0prune_speech.probes.labelled import Example, LabelledSet, Segment, segment

FORMAT = "l0prune-labelled-speech"
SPLITS = ("train", "seen", "unseen", "test")
_LABELS = ("speaker", "phonemes")
"""Beside the keyword. Where one clip has one of them, others of its kind, words or sentences, must have it too."""


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """A clip as the manifest has it."""

    segment: Segment
    split: str
    speaker: str | None
    phonemes: tuple[str, ...] | None
    keyword: str | None

    def example(self, label: str) -> Example:
        return Example(segment=self.segment, label=getattr(self, label), group=str(getattr(self, _GROUP[label]) or ""))


_GROUP = {"keyword": "keyword", "speaker": "speaker", "phonemes": "speaker"}


def read_manifest(folder: Path, content: Mapping[str, Any]) -> dict[str, LabelledSet]:
    """The sets of a folder with a manifest, by task.

    Args:
        folder: Holds `manifest.json` and the audio.
        content: Of the manifest: `clips`, each with `file`, `split` ("train"; "seen": other sentences of the same
            speakers; "unseen": other speakers; "test": either), some of `speaker`, `phonemes` (separated by spaces)
            and `keyword`, and perhaps `start_seconds` and `duration_seconds`.

    Raises:
        DataError: Labels and audio do not match, or speakers stand in the wrong split.
    """
    entries = _entries(folder, content)
    _check_speakers(entries, folder)
    words = [entry for entry in entries if entry.keyword is not None]
    sentences = [entry for entry in entries if entry.keyword is None]
    # Words that are said alone serve where there are no sentences.
    spoken = {
        label: [e for e in sentences if getattr(e, label)] or [e for e in words if getattr(e, label)]
        for label in _LABELS
    }
    wanted = {
        "keyword": (words, "keyword", "unseen"),
        "speaker": (spoken["speaker"], "speaker", "seen"),
        "phone": (spoken["phonemes"], "phonemes", "unseen"),
        "verification": (spoken["speaker"], "speaker", "unseen"),
    }
    return {
        task: LabelledSet(
            name=str(folder),
            train=tuple(entry.example(label) for entry in of_task if entry.split == "train"),
            test=tuple(entry.example(label) for entry in of_task if entry.split == test),
        )
        for task, (of_task, label, test) in wanted.items()
        if {"train", test} <= {entry.split for entry in of_task}
    }


def _entries(folder: Path, content: Mapping[str, Any]) -> list[_Entry]:
    manifest = folder / "manifest.json"
    rows = content.get("clips")
    if not isinstance(rows, list) or not rows:
        raise DataError("manifest lists no clips", where=manifest, expected="a list `clips`")
    found = find_clips([folder], min_seconds=0.0)
    clips = {clip.path.relative_to(folder).as_posix(): clip for clip in found.clips}
    skipped = {file.path.relative_to(folder).as_posix(): file.reason for file in found.skipped}
    labels = {
        alone: ["keyword"] * alone
        + [
            key
            for key in _LABELS
            if any(_is_word(row) == alone and row.get(key) is not None for row in rows if isinstance(row, Mapping))
        ]
        for alone in (False, True)
    }
    entries = _tested(
        [_entry(row, f"{manifest}: clip {number}", clips, skipped, labels) for number, row in enumerate(rows)]
    )
    unlabelled = sorted(set(clips) - {str(row["file"]) for row in rows})
    if unlabelled:
        got = f"{len(unlabelled)} files that the manifest does not list, {unlabelled[0]} first"
        raise DataError("audio without labels", where=folder, got=got, hint="list them or move them elsewhere")
    return entries


def _is_word(row: Any) -> bool:
    return isinstance(row, Mapping) and row.get("keyword") is not None


def _tested(entries: Sequence[_Entry]) -> list[_Entry]:
    """The entries of the split "test" by their speakers: seen in training, or not."""
    seen = {entry.speaker for entry in entries if entry.split == "train"} - {None}
    return [
        replace(entry, split="seen" if entry.speaker in seen else "unseen") if entry.split == "test" else entry
        for entry in entries
    ]


def _entry(
    row: Any, where: str, clips: Mapping[str, Clip], skipped: Mapping[str, str], labels: Mapping[bool, Sequence[str]]
) -> _Entry:
    if not isinstance(row, Mapping):
        raise DataError("malformed manifest", where=where, got=type(row).__name__, expected="an object")
    if not labels[_is_word(row)]:
        raise DataError("clip without labels", where=where, expected="one of speaker, phonemes and keyword")
    for key in ("file", "split", *labels[_is_word(row)]):
        if not isinstance(row.get(key), str) or not row[key].strip():
            raise DataError("malformed manifest", where=where, got=f"{key} = {row.get(key)!r}", expected="text")
    if row["split"] not in SPLITS:
        raise DataError("malformed manifest", where=where, got=f"split {row['split']}", expected=", ".join(SPLITS))
    if row["file"] in skipped:
        got, hint = f"{row['file']}, {skipped[row['file']]}", "replace it, or leave it out"
        raise DataError("labels without audio", where=where, got=got, hint=hint)
    if row["file"] not in clips:
        hint = f"is it there, and one of {', '.join(SUFFIXES)}?"
        raise DataError("labels without audio", where=where, got=row["file"], hint=hint)
    try:
        places = {key: float(row[key]) for key in ("start_seconds", "duration_seconds") if row.get(key) is not None}
        if not all(map(isfinite, places.values())):
            raise ValueError("not a finite number")
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError("malformed manifest", where=where, got=error, expected="seconds") from error
    return _Entry(
        segment=segment(clips[row["file"]], **places),
        split=row["split"],
        speaker=row.get("speaker"),
        phonemes=tuple(row["phonemes"].split()) if row.get("phonemes") else None,
        keyword=row.get("keyword"),
    )


def _check_speakers(entries: Sequence[_Entry], folder: Path) -> None:
    """Raise a `DataError` where a speaker stands in a split that is not for him."""
    by_split = {
        split: {entry.speaker for entry in entries if entry.split == split and entry.speaker} for split in SPLITS
    }
    overlap = sorted(by_split["unseen"] & by_split["train"])
    if overlap:
        where, hint = f"{folder}: {overlap[0]}", "a speaker of the training clips is tested in the split `seen`"
        raise DataError("train and test overlap: speaker", where=where, got="train and unseen", hint=hint)
    strange = sorted(by_split["seen"] - by_split["train"])
    if strange:
        raise DataError("speaker is tested but never trained on", where=f"{folder}: {strange[0]}")
