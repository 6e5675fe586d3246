"""From rows of labels to the sets that they allow: which tasks, and what is trained and tested on where nobody says."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from l0prune.support import listed
from l0prune_speech.probes.labelled import Example, Label, LabelledSet, Segment

_EVERY = 5
"""Of this many, one tests."""
_LEAST_CLIPS, _LEAST_SPEAKERS = 2, 4
"""Of a class to train on; of a set in which some speakers are only tested."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A clip with what is known of it."""

    segment: Segment
    split: str = ""
    """ "train", "test", or nothing."""
    speaker: str = ""
    phones: tuple[str, ...] = ()
    label: str = ""
    """A class: a keyword, for example."""


Parts = tuple[list[Row], list[Row]]
"""To train on, and to test on."""


def sets_of(rows: Sequence[Row], name: str, notes: Sequence[str]) -> dict[str, LabelledSet]:
    """The set of each task that the labels allow.

    Where rows have splits, those of the training split are trained on; speakers are identified among the test clips of
    the same speakers, and verified among those of others. Without splits every fifth clip is tested, of each class for
    itself, or of every fifth speaker if there are enough and the task is about other things than speakers.

    Args:
        rows: With labels of any kind.
        name: The data they come from.
        notes: What to say of them.
    """
    made = {task: _set(task, rows, name, notes) for task in _TASKS}
    return {task: found for task, found in made.items() if found is not None}


def _set(task: str, rows: Sequence[Row], name: str, notes: Sequence[str]) -> LabelledSet | None:
    label, parted, classes = _TASKS[task]
    own = [row for row in rows if label(row)]
    if task != "keyword":
        # Words that are said alone serve where there are no sentences.
        own = [row for row in own if not row.label] or own
    train, test = parted(own)
    left_out: list[str] = []
    if classes:
        counts = Counter(label(row) for row in train)
        rare = {one for one, count in counts.items() if count < _LEAST_CLIPS}
        if rare:
            names = listed(sorted(map(str, rare)))
            left_out = [
                f"{task}: classes with fewer than {_LEAST_CLIPS} clips to train on left out, {len(rare)}: {names}"
            ]
        train = [row for row in train if label(row) not in rare]
        if task != "verification":
            test = [row for row in test if label(row) in counts.keys() - rare]
    if not train or not test or (classes and len({label(row) for row in train}) < 2):
        return None
    group = label if task == "keyword" else _speaker
    learnt, tested = (
        tuple(Example(segment=row.segment, label=label(row), group=str(group(row))) for row in part)
        for part in (train, test)
    )
    return LabelledSet(name=name, train=learnt, test=tested, notes=(*notes, *left_out))


def _speaker(row: Row) -> str:
    return row.speaker


def _same_speakers(rows: Sequence[Row]) -> Parts:
    """Some clips of each speaker are tested."""
    return _given(rows) or _every_fifth(rows, _speaker)


def _other_speakers(rows: Sequence[Row]) -> Parts:
    """Some speakers are only tested, where there are enough; else some clips."""
    return _given(rows) or _held_out(rows) or _every_fifth(rows, _speaker)


def _words(rows: Sequence[Row]) -> Parts:
    """Said by other speakers, where each word is said by those who are trained on too; else some clips of each word."""
    parts = _held_out(rows)
    if parts and {row.label for row in parts[0]} != {row.label for row in rows}:
        parts = None
    return _given(rows) or parts or _every_fifth(rows, lambda row: row.label)


def _verified(rows: Sequence[Row]) -> Parts:
    """Speakers who are tested are not trained on."""
    if given := _given(rows):
        known = {row.speaker for row in given[0]}
        return given[0], [row for row in given[1] if row.speaker not in known]
    return _held_out(rows) or ([], [])


_TASKS: dict[str, tuple[Callable[[Row], Label], Callable[[Sequence[Row]], Parts], bool]] = {
    "keyword": (lambda row: row.label, _words, True),
    "speaker": (_speaker, _same_speakers, True),
    "phone": (lambda row: row.phones, _other_speakers, False),
    "verification": (_speaker, _verified, True),
}
"""What is to be found, how rows are parted, and whether that is a class."""


def _given(rows: Sequence[Row]) -> Parts | None:
    """The parts that rows name; None where none does."""
    if not any(row.split for row in rows):
        return None
    return [row for row in rows if row.split == "train"], [row for row in rows if row.split == "test"]


def _held_out(rows: Sequence[Row]) -> Parts | None:
    """Every fifth speaker is tested, of few two; None where there are too few, or not all are known."""
    speakers = sorted({row.speaker for row in rows})
    if "" in speakers or len(speakers) < _LEAST_SPEAKERS:
        return None
    chosen = set(speakers[1 :: min(_EVERY, len(speakers) // 2)])
    return [row for row in rows if row.speaker not in chosen], [row for row in rows if row.speaker in chosen]


def _every_fifth(rows: Sequence[Row], label: Callable[[Row], Label]) -> Parts:
    """One clip of five in turns, of each class for itself: the second, so that three clips are enough."""
    seen: Counter[Label] = Counter()
    train, test = [], []
    for row in sorted(rows, key=lambda row: row.segment.name):
        (test if seen[label(row)] % _EVERY == 1 else train).append(row)
        seen[label(row)] += 1
    return train, test
