"""Parts of the training set on which a probe's learning rate is chosen, so that the test set has no say in it."""

from collections.abc import Container

from l0prune_speech.probes.labelled import Example, LabelledSet


def clip_folds(labelled: LabelledSet, count: int) -> tuple[LabelledSet, ...]:
    """Every clip is held out in one of some folds, those of a class in turns: of two or more, one stays to train on.

    Args:
        labelled: Its training set is parted.
        count: Of folds; fewer where there are fewer clips.
    """
    ordered = sorted(labelled.train, key=lambda example: (str(example.label), example.segment.name))
    folds = (frozenset(range(first, len(ordered), count)) for first in range(count))
    return tuple(_parted(labelled, [ordered[number] for number in sorted(fold)]) for fold in folds if fold)


def class_folds(labelled: LabelledSet, count: int) -> tuple[LabelledSet, ...]:
    """Every class is held out as a whole in one of some folds; no folds where fewer than two would be, or stay.

    Args:
        labelled: Its training set is parted.
        count: Of folds.
    """
    classes = sorted({str(example.label) for example in labelled.train})
    if len(classes) < 2 * count:
        return ()
    parts = (frozenset(classes[first::count]) for first in range(count))
    return tuple(_parted(labelled, [e for e in labelled.train if str(e.label) in part]) for part in parts)


def _parted(labelled: LabelledSet, held_out: list[Example]) -> LabelledSet:
    names: Container[str] = {example.segment.name for example in held_out}
    rest = tuple(example for example in labelled.train if example.segment.name not in names)
    return LabelledSet(name=labelled.name, train=rest, test=tuple(held_out))
