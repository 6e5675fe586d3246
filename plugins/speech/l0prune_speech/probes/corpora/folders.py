"""A folder a class, as many people keep labelled clips: perhaps below `train/` and `test/`."""

from collections.abc import Iterator
from pathlib import Path

from l0prune.support import listed
from l0prune_speech.data import SUFFIXES, find_clips
from l0prune_speech.probes.corpora.rows import Row, sets_of
from l0prune_speech.probes.corpora.splits import SPLITS
from l0prune_speech.probes.labelled import LabelledSet, segment


def is_here(folder: Path) -> bool:
    """Whether a folder has two folders or more with audio."""
    return any(len({name for name, _ in _files(place)}) > 1 for place, _ in _places(folder))


def read_sets(folder: Path, tasks: tuple[str, ...] = ()) -> dict[str, LabelledSet]:
    """Keyword spotting, where a folder's name is the class; speakers where a task about these is asked for.

    Args:
        folder: Of the folders.
        tasks: Those that are asked for.

    Raises:
        DataError: No clip can be read.
    """
    found = find_clips([folder], min_seconds=0.0)
    clips = {clip.path.resolve(): clip for clip in found.clips}
    of_speakers = bool({"speaker", "verification"} & set(tasks))
    rows, used = [], set()
    for place, split in _places(folder):
        for name, file in _files(place):
            used.add(file.resolve())
            if clip := clips.get(file.resolve()):
                label, speaker = ("", name) if of_speakers else (name, "")
                rows.append(Row(segment=segment(clip), split=split, speaker=speaker, label=label))
    loose = sorted(clip.path.name for path, clip in clips.items() if path not in used)
    notes = [f"{folder}: {len(loose)} clips in no folder of a class left out: {listed(loose)}"] if loose else []
    notes += [f"{folder}: {found.describe()}"] if found.skipped else []
    return sets_of(rows, str(folder), notes)


def _places(folder: Path) -> Iterator[tuple[Path, str]]:
    """Where the folders of classes are, and which split that is."""
    parts = [(path, SPLITS[path.name.lower()]) for path in sorted(folder.iterdir()) if path.name.lower() in SPLITS]
    if {"train", "test"} <= {split for _, split in parts}:
        yield from ((path, split) for path, split in parts if path.is_dir() and split)
    else:
        yield folder, ""


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """The audio files of each class."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith((".", "_")):
            for file in sorted(path.rglob("*")):
                if file.suffix.lower() in SUFFIXES:
                    yield path.name, file
