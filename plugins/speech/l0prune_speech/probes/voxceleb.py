"""VoxCeleb1, as it is distributed: `wav/` with a folder a speaker, and the lists of its two tasks."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from l0prune import DataError
from l0prune_speech.audio import Clip, find_clips
from l0prune_speech.probes.labelled import Example, LabelledSet, segment

_IDENTIFICATION, _VERIFICATION = "iden_split.txt", "veri_test.txt"


def is_here(folder: Path) -> bool:
    """Whether a folder has this layout."""
    lists = (_IDENTIFICATION, _VERIFICATION)
    return (folder / "wav").is_dir() and any((folder / name).is_file() for name in lists)


def read_sets(folder: Path) -> dict[str, LabelledSet]:
    """Identification with the corpus's split, and verification with its pairs.

    Raises:
        DataError: A list names clips that are not there.
    """
    from torchaudio.datasets import VoxCeleb1Identification, VoxCeleb1Verification

    clips = {
        clip.path.relative_to(folder / "wav").as_posix(): clip
        for clip in find_clips([folder / "wav"], min_seconds=0.0).clips
    }
    sets = {}
    # torchaudio would download a list that is missing.
    if (folder / _IDENTIFICATION).is_file():
        splits = [VoxCeleb1Identification(folder, subset) for subset in ("train", "test")]
        names = [[split.get_metadata(number)[0] for number in range(len(split))] for split in splits]
        train, test = (_examples(clips, of_split, folder / _IDENTIFICATION) for of_split in names)
        sets["speaker"] = LabelledSet(name=str(folder), train=train, test=test)
    if (folder / _VERIFICATION).is_file():
        corpus = VoxCeleb1Verification(folder)
        pairs = [corpus.get_metadata(number) for number in range(len(corpus))]
        sets["verification"] = _verification(
            clips, [(one, other, bool(same)) for one, other, _, same, *_ in pairs], folder
        )
    return sets


def _verification(clips: dict[str, Clip], pairs: Sequence[tuple[str, str, bool]], folder: Path) -> LabelledSet:
    """Train on every speaker that is in no pair."""
    tested = sorted({name for one, other, _same in pairs for name in (one, other)})
    speakers = {_speaker(name) for name in tested}
    train = _examples(clips, [name for name in clips if _speaker(name) not in speakers], folder)
    test = _examples(clips, tested, folder / _VERIFICATION)
    names = {name: example.segment.name for name, example in zip(tested, test, strict=True)}
    trials = tuple((names[one], names[other], same) for one, other, same in pairs)
    return LabelledSet(name=str(folder), train=train, test=test, trials=trials)


def _examples(clips: dict[str, Clip], names: Iterable[str], where: Path) -> tuple[Example, ...]:
    found = []
    for name in names:
        if name not in clips:
            raise DataError("labels without audio", where=where, got=name)
        speaker = _speaker(name)
        found.append(Example(segment=segment(clips[name]), label=speaker, group=speaker))
    return tuple(found)


def _speaker(name: str) -> str:
    return name.split("/", 1)[0]
