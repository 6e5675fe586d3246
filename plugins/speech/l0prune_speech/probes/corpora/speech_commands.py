"""Speech Commands, as it is distributed: a folder a word, and lists of what to validate and test on."""

from collections.abc import Iterator
from pathlib import Path

from l0prune import DataError
from l0prune_speech.data import find_clips
from l0prune_speech.probes.corpora.lists import records
from l0prune_speech.probes.labelled import Example, LabelledSet, segment

_LISTS = ("validation_list.txt", "testing_list.txt")
_EXPECTED = "a clip a line, as in yes/004ae714_nohash_0.wav"
_HASHED, _NOISE = "_nohash_", "_background_noise_"


def is_here(folder: Path) -> bool:
    """Whether a folder has this layout."""
    return (folder / _LISTS[1]).is_file()


def read_sets(folder: Path) -> dict[str, LabelledSet]:
    """Keyword spotting of all words, with the corpus's own split.

    Raises:
        DataError: A list is missing or malformed, or a clip is missing or cannot be read.
    """
    missing = [name for name in _LISTS if not (folder / name).is_file()]
    if missing:
        raise DataError("Speech Commands without its lists", where=folder, got=f"no {missing[0]}")
    validation, testing = ({path: where for where, path in _listed(folder / name)} for name in _LISTS)
    training = [path for path in sorted(folder.glob("*/*.wav")) if _HASHED in path.name and path.parent.name != _NOISE]
    found = find_clips([folder], min_seconds=0.0)
    clips = {clip.path.resolve(): clip for clip in found.clips}
    skipped = {file.path.resolve(): file.reason for file in found.skipped}

    def example(path: Path, where: object) -> Example:
        clip, reason = clips.get(path.resolve()), skipped.get(path.resolve(), "missing")
        if clip is None:
            raise DataError("labels without audio", where=where, got=f"{path.parent.name}/{path.name}, {reason}")
        return Example(segment=segment(clip), label=path.parent.name, group=path.parent.name)

    train = [example(path, folder) for path in training if path not in validation and path not in testing]
    test = [example(path, where) for path, where in testing.items()]
    return {"keyword": LabelledSet(name=str(folder), train=tuple(train), test=tuple(test))}


def _listed(file: Path) -> Iterator[tuple[str, Path]]:
    """Each clip of a list, and where it is listed."""
    for where, (name,) in records(file, fields=1, expected=_EXPECTED):
        if name.count("/") != 1 or name.startswith("/"):
            raise DataError("malformed list", where=where, got=repr(name), expected=_EXPECTED)
        yield where, file.parent / name
