"""Clips with what is said in them, which class they are of or who speaks: lists, and trees as LibriSpeech's.

A list is a .tsv or .csv file whose first line names its columns: `path` (relative to the list), and `text`, `label` or
`speaker`. Two columns without names are a path and its label. Shards, manifests of lhotse and datasets carry labels of
their own.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from l0prune.errors import DataError
from l0prune_speech.data.audio import find_clips
from l0prune_speech.data.clips import Clip, ClipSet
from l0prune_speech.data.columns import COLUMNS

PATHS = ("path", "file", "audio", "file_name", "filename")
_SEPARATORS = {".tsv": "\t", ".csv": ","}
_TRANSCRIPTS = ".trans.txt"


@dataclass(frozen=True, kw_only=True)
class LabelledClip:
    """A clip, and its label as it stands in a list."""

    clip: Clip
    label: str
    where: str
    """The line that says so."""


@dataclass(frozen=True, kw_only=True)
class LabelledClips:
    """What lists and folders hold."""

    labelled: tuple[LabelledClip, ...]
    unlabelled: tuple[Clip, ...]
    """Of paths without labels."""
    found: ClipSet
    """All of them, and what was left out."""


def is_list(path: Path, holds: str) -> bool:
    """Whether a path is a list of clips and their labels, or a tree with transcripts.

    Args:
        path: Any.
        holds: "text", "label" or "speaker".
    """
    if path.is_dir():
        return holds != "label" and next(path.rglob(f"*{_TRANSCRIPTS}"), None) is not None
    if path.suffix.lower() not in _SEPARATORS or not path.is_file():
        return False
    first = next(_rows(path), (0, []))[1]
    return _column(first, PATHS) is not None or (
        len(first) == 2 and (path.parent / first[0]).is_file() and not first[1].strip().isdecimal()
    )


def find_labelled(paths: Sequence[Path], holds: str, *, min_seconds: float) -> LabelledClips:
    """Clips with their labels, and those of paths that have none.

    Args:
        paths: Lists, trees with transcripts, and what `find_clips` takes.
        holds: "text", "label" or "speaker".
        min_seconds: Shorter clips are left out.

    Raises:
        DataError: A label is without audio or audio in a tree without a label, a list lacks a column, or no clip is
            left.
    """
    entries: dict[Path, tuple[str, str]] = {}
    plain: list[Path] = []
    for path in paths:
        if not is_list(path, holds):
            plain.append(path)
            continue
        for file, label, where in _tree(path, holds) if path.is_dir() else _listed(path, holds):
            entries.setdefault(file.resolve(), (label, where))
    found = find_clips([*entries, *plain], min_seconds=min_seconds)
    clips = {clip.path.resolve(): clip for clip in found.clips}
    labelled = tuple(
        LabelledClip(clip=clips[file], label=label, where=where)
        for file, (label, where) in entries.items()
        if file in clips
    )
    # Of one file there may be several: those within a shard.
    plain_clips = [clip for clip in found.clips if clip.path.resolve() not in entries]
    carried = tuple(
        LabelledClip(clip=clip, label=label, where=clip.where)
        for clip in plain_clips
        if (label := dict(clip.labels).get(holds))
    )
    unlabelled = tuple(clip for clip in plain_clips if holds not in dict(clip.labels))
    return LabelledClips(labelled=(*labelled, *carried), unlabelled=unlabelled, found=found)


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines of a list that are not blank, with their numbers."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            quoting = csv.QUOTE_NONE if path.suffix.lower() == ".tsv" else csv.QUOTE_MINIMAL
            reader = csv.reader(file, delimiter=_SEPARATORS[path.suffix.lower()], quoting=quoting)
            for row in reader:
                if any(cell.strip() for cell in row):
                    yield reader.line_num, [cell.strip() for cell in row]
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError("list cannot be read", where=path, got=error, expected="UTF-8 text") from error


def _column(first: Sequence[str], names: Sequence[str]) -> int | None:
    lower = [cell.lower() for cell in first]
    return next((lower.index(name) for name in names if name in lower), None)


def _listed(path: Path, holds: str) -> Iterator[tuple[Path, str, str]]:
    """Each clip of a list, its label, and where it is listed."""
    rows = _rows(path)
    _, first = next(rows)
    place, label = _column(first, PATHS), _column(first, COLUMNS[holds])
    if place is None:
        rows, place, label = _rows(path), 0, 1
    elif label is None:
        expected = f"a column {' or '.join(COLUMNS[holds])}"
        raise DataError("the list has no labels for the task", where=f"{path}:1", got=first, expected=expected)
    for number, row in rows:
        where = f"{path}:{number}"
        if len(row) <= max(place, label):
            raise DataError("malformed list", where=where, got=row, expected=f"at least {max(place, label) + 1} fields")
        if not row[label]:
            raise DataError("audio without a label", where=where, got=row[place])
        file = path.parent / row[place]
        if not file.is_file():
            raise DataError(
                "label without audio", where=where, got=row[place], hint="is the path relative to the list?"
            )
        yield file, row[label], where


def _tree(folder: Path, holds: str) -> Iterator[tuple[Path, str, str]]:
    """Each clip of a tree as LibriSpeech's: its transcript, or its speaker (the folder of the chapters)."""
    from l0prune_speech.data.sources import SUFFIXES

    audio = {file.stem: file for file in sorted(folder.rglob("*")) if file.suffix.lower() in SUFFIXES}
    told: set[str] = set()
    for file in sorted(folder.rglob(f"*{_TRANSCRIPTS}")):
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeError) as error:
            raise DataError("list cannot be read", where=file, got=error, expected="UTF-8 text") from error
        for number, line in enumerate(lines, start=1):
            name, _, text = line.strip().partition(" ")
            if not name:
                continue
            where = f"{file}:{number}"
            if name not in audio:
                raise DataError("transcript without audio", where=where, got=name)
            told.add(name)
            yield audio[name], text if holds == "text" else file.parent.parent.name, where
    silent = sorted(set(audio) - told)
    if silent:
        got = f"{len(silent)} clips, {silent[0]} first"
        raise DataError("audio without a transcript", where=folder, got=got, hint="give the others in a list")
