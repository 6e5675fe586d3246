"""VoxCeleb1, as it is distributed: `wav/` with a folder a speaker, and the lists of its two tasks."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from l0prune import DataError
from l0prune_speech.data import Clip, find_clips
from l0prune_speech.probes.corpora.lists import records
from l0prune_speech.probes.labelled import Example, LabelledSet, Pair, segment

_IDENTIFICATION, _VERIFICATION = "iden_split.txt", "veri_test.txt"


def is_here(folder: Path) -> bool:
    """Whether a folder has this layout."""
    lists = (_IDENTIFICATION, _VERIFICATION)
    return (folder / "wav").is_dir() and any((folder / name).is_file() for name in lists)


def read_sets(folder: Path) -> dict[str, LabelledSet]:
    """Identification with the corpus's split, and verification with its pairs.

    Raises:
        DataError: A list is malformed, or names clips that are missing or cannot be read.
    """
    found = find_clips([folder / "wav"], min_seconds=0.0)
    audio = _Audio(
        clips={_name(clip.path, folder): clip for clip in found.clips},
        skipped={_name(file.path, folder): file.reason for file in found.skipped},
    )
    lists = {"speaker": (_IDENTIFICATION, _identification), "verification": (_VERIFICATION, _verification)}
    return {task: read(folder, audio) for task, (name, read) in lists.items() if (folder / name).is_file()}


def _name(path: Path, folder: Path) -> str:
    """Of a clip, as the lists have it."""
    return path.relative_to(folder / "wav").as_posix()


@dataclass(frozen=True, kw_only=True)
class _Audio:
    """What lies in the folder, by the names that the lists use."""

    clips: Mapping[str, Clip]
    skipped: Mapping[str, str]
    """Why."""

    def example(self, name: str, where: str) -> Example:
        """A clip of a list; what its line is called goes into the error."""
        if name not in self.clips:
            raise DataError("labels without audio", where=where, got=f"{name}, {self.skipped.get(name, 'missing')}")
        return Example(segment=segment(self.clips[name]), label=_speaker(name), group=_speaker(name))


def _identification(folder: Path, audio: _Audio) -> LabelledSet:
    """Train on the first part of the list and test on the third; the second is for validation."""
    parts: dict[str, list[Example]] = {"1": [], "2": [], "3": []}
    expected = "1, 2 or 3, and a clip: 1 id10006/nLEBBc9oIFs/00003.wav"
    for where, (part, name) in records(folder / _IDENTIFICATION, fields=2, expected=expected):
        if part not in parts:
            raise DataError("malformed list", where=where, got=part, expected=expected)
        if part != "2":
            parts[part].append(audio.example(name, where))
    return LabelledSet(name=str(folder), train=tuple(parts["1"]), test=tuple(parts["3"]))


def _verification(folder: Path, audio: _Audio) -> LabelledSet:
    """Train on every speaker that is in no pair."""
    test: dict[str, Example] = {}
    trials: list[Pair] = []
    expected = "1 (one speaker) or 0, and two clips: 1 id10270/x6uYqmx31kE/00001.wav id10270/8jEAjG6SegY/00008.wav"
    for where, (same, *names) in records(folder / _VERIFICATION, fields=3, expected=expected):
        if same not in ("0", "1"):
            raise DataError("malformed list", where=where, got=same, expected=expected)
        for name in names:
            test[name] = test.get(name) or audio.example(name, where)
        one, other = (test[name].segment.name for name in names)
        trials.append((one, other, same == "1"))
    tested = {example.group for example in test.values()}
    train = [audio.example(name, "") for name in audio.clips if _speaker(name) not in tested]
    return LabelledSet(name=str(folder), train=tuple(train), test=tuple(test.values()), trials=tuple(trials))


def _speaker(name: str) -> str:
    return name.split("/", 1)[0]
