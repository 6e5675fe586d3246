"""Speech Commands, as it is distributed: a folder a word, and lists of what to validate and test on."""

from pathlib import Path

from l0prune import DataError
from l0prune_speech.audio import Clip, find_clips
from l0prune_speech.probes.labelled import Example, LabelledSet, segment

_LISTS = ("validation_list.txt", "testing_list.txt")


def is_here(folder: Path) -> bool:
    """Whether a folder has this layout."""
    return (folder / _LISTS[1]).is_file()


def read_sets(folder: Path) -> dict[str, LabelledSet]:
    """Keyword spotting of all words, with the corpus's own split.

    Raises:
        DataError: A list names clips that are not there.
    """
    from torchaudio.datasets import SPEECHCOMMANDS

    missing = [name for name in _LISTS if not (folder / name).is_file()]
    if missing:
        raise DataError("Speech Commands without its lists", where=folder, got=f"no {missing[0]}")
    clips = {clip.path.resolve(): clip for clip in find_clips([folder], min_seconds=0.0).clips}
    splits = {}
    for split in ("training", "testing"):
        # Without names of its own: the folder itself, wherever it lies.
        corpus = SPEECHCOMMANDS(folder, url="", folder_in_archive="", subset=split)
        entries = [corpus.get_metadata(number) for number in range(len(corpus))]
        splits[split] = tuple(_example(folder, clips, entry[0], entry[2]) for entry in entries)
    labelled = LabelledSet(name=str(folder), train=splits["training"], test=splits["testing"])
    return {"keyword": labelled}


def _example(folder: Path, clips: dict[Path, Clip], name: str, word: str) -> Example:
    path = (folder / name).resolve()
    if path not in clips:
        raise DataError("labels without audio", where=folder / name, got=f"listed in {_LISTS[1]}, and not there")
    return Example(segment=segment(clips[path]), label=word, group=word)
