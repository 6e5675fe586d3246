"""What a labelled set must be before anything is trained on it."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from l0prune import DataError
from l0prune_speech.probes.labelled import LabelledSet, Segment


def check_overlap(labelled: LabelledSet) -> None:
    """Raise a `DataError` where something is trained and tested on: a place in a file, or in a copy of it."""
    train = [example.segment for example in labelled.train]
    test = [example.segment for example in labelled.test]
    sizes = {path: path.stat().st_size for path in {part.clip.path for part in (*train, *test)}}
    shared = {sizes[part.clip.path] for part in train} & {sizes[part.clip.path] for part in test}

    @cache
    def content(path: Path) -> str:
        """The same for copies, byte for byte; files whose size no other split has need not be read."""
        return hashlib.sha256(path.read_bytes()).hexdigest() if sizes[path] in shared else str(path)

    places: dict[str, list[Segment]] = defaultdict(list)
    for part in train:
        places[content(part.clip.path)].append(part)
    for part in test:
        for twin in places[content(part.clip.path)]:
            if _overlap(part, twin):
                got = f"trained on in {twin.name}" if twin.clip.path == part.clip.path else f"a copy of {twin.name}"
                raise DataError("train and test overlap", where=part.name, got=got, hint="leave it out of one of them")


def _overlap(one: Segment, other: Segment) -> bool:
    return max(one.start_seconds, other.start_seconds) < min(one.end_seconds, other.end_seconds)


def check_classes(labelled: LabelledSet, *, unseen: bool) -> None:
    """Raise a `DataError` for classes that cannot be learnt or tested.

    Args:
        labelled: What a task is trained and tested on.
        unseen: The classes of the test set must be others than those trained on (speaker verification), not the same.
    """
    counts = Counter(str(example.label) for example in labelled.train)
    if len(counts) < 2:
        raise DataError("a single class to train on", where=f"{labelled.name}: {next(iter(counts))}")
    rare = [label for label, count in counts.items() if count < 2]
    if rare:
        where, hint = f"{labelled.name}: {_first(rare)}", "give it another, or leave it out"
        raise DataError("class with a single example", where=where, expected="2 or more", hint=hint)
    tested = {str(example.label) for example in labelled.test}
    both, strange = tested & set(counts), tested - set(counts)
    if unseen and both:
        raise DataError("train and test overlap: speaker", where=f"{labelled.name}: {_first(both)}")
    if strange and not unseen:
        raise DataError("class is tested but never trained on", where=f"{labelled.name}: {_first(strange)}")


def _first(labels: Iterable[str]) -> str:
    return min(labels)
