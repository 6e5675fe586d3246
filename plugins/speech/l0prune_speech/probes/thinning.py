"""A part of a labelled set that every class still has its share in."""

from collections.abc import Sequence
from random import Random

from l0prune_speech.probes.labelled import Example, LabelledSet

_CLIPS_A_GROUP = 10


def thinned(labelled: LabelledSet, minutes: float) -> LabelledSet:
    """At most so much audio in each split: some of the groups, and as many clips of each as they have in common.

    Args:
        labelled: All there is.
        minutes: To keep of each split.
    """
    train = {example.group for example in labelled.train}
    groups = {"train": train, "test": {example.group for example in labelled.test}}
    kept = {}
    for split, of_split in groups.items():
        examples: tuple[Example, ...] = getattr(labelled, split)
        mean = sum(example.segment.duration_seconds for example in examples) / len(examples)
        enough = max(2, int(60 * minutes / mean / _CLIPS_A_GROUP))
        # A class that is tested is trained on: the choice of the test set is made among those of the training set.
        pool = of_split & kept["train"] if split == "test" and of_split <= train else of_split
        kept[split] = set(Random(0).sample(sorted(pool), min(enough, len(pool))))
    chosen = {split: _shares(getattr(labelled, split), kept[split], minutes) for split in groups}
    names = {example.segment.name for example in chosen["test"]}
    trials = labelled.trials and tuple(trial for trial in labelled.trials if {*trial[:2]} <= names)
    return LabelledSet(name=labelled.name, trials=trials, **chosen)


def _shares(examples: Sequence[Example], groups: set[str], minutes: float) -> tuple[Example, ...]:
    """Clips of some groups in turns, until the minutes are full."""
    rng, queues = Random(0), {group: [] for group in sorted(groups)}
    for example in examples:
        if example.group in queues:
            queues[example.group].append(example)
    for queue in queues.values():
        rng.shuffle(queue)
    turns = max(map(len, queues.values()))
    order = [queue[turn] for turn in range(turns) for queue in queues.values() if turn < len(queue)]
    kept, seconds = [], 0.0
    for example in order:
        seconds += example.segment.duration_seconds
        if seconds > 60 * minutes and kept:
            break
        kept.append(example)
    return tuple(kept)
