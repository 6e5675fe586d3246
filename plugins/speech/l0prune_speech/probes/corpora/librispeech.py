"""LibriSpeech, as it is distributed: subsets of speakers' folders of chapters, each with its transcripts."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from l0prune import DataError
from l0prune_speech.data import find_clips
from l0prune_speech.probes.corpora.lists import read_lexicon, records
from l0prune_speech.probes.labelled import Example, LabelledSet, Segment, segment

_TRAIN = ("train-clean-100", "train-clean-360", "train-other-500")
_TEST = ("test-clean", "dev-clean", "test-other", "dev-other")
_HELD_OUT = 5
"""Every fifth utterance of a speaker tests the identification of speakers."""


@dataclass(frozen=True, kw_only=True)
class _Utterance:
    """A clip with what is said and by whom."""

    segment: Segment
    words: tuple[str, ...]
    speaker: str


def is_here(folder: Path) -> bool:
    """Whether a folder has this layout."""
    return any((folder / name).is_dir() for name in (*_TRAIN, *_TEST))


def read_sets(folder: Path) -> dict[str, LabelledSet]:
    """Speakers and, with the corpus's lexicon beside it, phones.

    Training clips are those of all training subsets, test clips those of the first test subset there is.

    Raises:
        DataError: A subset is missing, or its transcripts do not match its audio.
    """
    train = [one for name in _TRAIN for one in _utterances(folder, name)]
    test = next((found for name in _TEST if (found := _utterances(folder, name))), [])
    if not train or not test:
        got, expected = ("no test subset", _TEST) if train else ("no training subset", _TRAIN)
        raise DataError("LibriSpeech is incomplete", where=folder, got=got, expected=f"one of {', '.join(expected)}")
    held_out = {one.segment.name for one in _every_fifth(train)}
    sets = {
        "speaker": (
            [_by_speaker(one) for one in train if one.segment.name not in held_out],
            [_by_speaker(one) for one in train if one.segment.name in held_out],
        ),
        "verification": ([_by_speaker(one) for one in train], [_by_speaker(one) for one in test]),
    }
    lexicon = read_lexicon(folder)
    if lexicon:
        sets["phone"] = (_by_phones(train, lexicon), _by_phones(test, lexicon))
    return {
        task: LabelledSet(name=str(folder), train=tuple(train), test=tuple(test))
        for task, (train, test) in sets.items()
    }


def _utterances(folder: Path, subset: str) -> list[_Utterance]:
    """The clips of a subset; none where it is not there."""
    if not (folder / subset).is_dir():
        return []
    found = find_clips([folder / subset], min_seconds=0.0)
    clips = {clip.path.stem: clip for clip in found.clips}
    skipped = {file.path.stem: file.reason for file in found.skipped}
    utterances = {}
    for file in sorted((folder / subset).glob("*/*/*.trans.txt")):
        for where, (name, *words) in records(file, expected="the name of a clip and what is said"):
            if name not in clips:
                raise DataError("transcript without audio", where=where, got=f"{name}, {skipped.get(name, 'missing')}")
            speaker = file.parent.parent.name
            utterances[name] = _Utterance(segment=segment(clips[name]), words=tuple(words), speaker=speaker)
    silent = sorted(set(clips) - set(utterances))
    if silent:
        raise DataError("audio without a transcript", where=clips[silent[0]].path)
    return [utterances[name] for name in sorted(utterances)]


def _every_fifth(utterances: Iterable[_Utterance]) -> list[_Utterance]:
    by_speaker: dict[str, list[_Utterance]] = {}
    for one in utterances:
        by_speaker.setdefault(one.speaker, []).append(one)
    return [one for own in by_speaker.values() for one in own[_HELD_OUT - 1 :: _HELD_OUT]]


def _by_speaker(one: _Utterance) -> Example:
    return Example(segment=one.segment, label=one.speaker, group=one.speaker)


def _by_phones(utterances: Iterable[_Utterance], lexicon: dict[str, tuple[str, ...]]) -> list[Example]:
    """Those utterances all of whose words the lexicon has."""
    return [
        Example(segment=one.segment, label=tuple(p for word in one.words for p in lexicon[word]), group=one.speaker)
        for one in utterances
        if all(word in lexicon for word in one.words)
    ]
