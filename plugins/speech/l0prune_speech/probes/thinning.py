"""A part of a labelled set that every class still has its share in."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from heapq import heappop, heappush
from random import Random

from l0prune_speech.probes.labelled import Example, LabelledSet, Pair

_CLIPS_A_GROUP = 10


def thinned(labelled: LabelledSet, minutes: float) -> LabelledSet:
    """At most so much audio in each split: some of the groups, and as many clips of each as they have in common.

    Of a set with trials, some of these, and the clips that they compare.

    Args:
        labelled: All there is.
        minutes: To keep of each split; a clip or a trial stays in any case.
    """
    groups, room = _groups(labelled.train), _room(labelled.train, minutes)
    tested = _groups(labelled.test) if labelled.trials is None else set()
    # A class that is tested is trained on: the choice of the test set comes first, and fits into the training set.
    common = tested <= groups
    enough = min(room, _room(labelled.test, minutes)) if common else _room(labelled.test, minutes)
    tested = _sample(tested, enough)
    learnt = tested | _sample(groups - tested, room - len(tested)) if common else _sample(groups, room)
    train = _shares(labelled.train, learnt, minutes)
    if labelled.trials is None:
        return LabelledSet(name=labelled.name, train=train, test=_shares(labelled.test, tested, minutes))
    trials = _some_trials(labelled.test, labelled.trials, minutes)
    names = {name for one, other, _same in trials for name in (one, other)}
    test = tuple(example for example in labelled.test if example.segment.name in names)
    return LabelledSet(name=labelled.name, train=train, test=test, trials=trials)


def _groups(examples: Sequence[Example]) -> set[str]:
    return {example.group for example in examples}


def _room(examples: Sequence[Example], minutes: float) -> float:
    """For how many groups there is time."""
    mean = sum(example.segment.duration_seconds for example in examples) / len(examples)
    return max(2, 60 * minutes / mean / _CLIPS_A_GROUP)


def _sample(groups: Collection[str], count: float) -> set[str]:
    return set(Random(0).sample(sorted(groups), int(min(count, len(groups)))))


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


def _some_trials(examples: Sequence[Example], trials: Sequence[Pair], minutes: float) -> tuple[Pair, ...]:
    """Trials of one speaker and of two in turns, until the minutes are full.

    Those come first that need the fewest clips more, and among these the order is random: a random choice among all
    would hardly compare a clip twice, and find time for half as many.
    """
    seconds = {example.segment.name: example.segment.duration_seconds for example in examples}
    places = Random(0).sample(range(len(trials)), len(trials))
    of_clip: dict[str, list[int]] = defaultdict(list)
    queues: dict[bool, list[tuple[int, int, int]]] = {True: [], False: []}
    kept: set[str] = set()

    def queue(number: int) -> None:
        """Again whenever a clip of it is kept; the entry before comes later, and is passed over."""
        one, other, same = trials[number]
        heappush(queues[same], (len({one, other} - kept), places[number], number))

    for number, (one, other, _same) in enumerate(trials):
        of_clip[one].append(number)
        of_clip[other].append(number)
        queue(number)
    chosen, total, same = set(), 0.0, True
    while any(queues.values()):
        same = same if queues[same] else not same
        number = heappop(queues[same])[-1]
        if number in chosen:
            continue
        new = set(trials[number][:2]) - kept
        total += sum(seconds[name] for name in new)
        if total > 60 * minutes and chosen:
            break
        chosen.add(number)
        kept |= new
        for name in new:
            for waiting in of_clip[name]:
                queue(waiting)
        same = not same
    return tuple(trials[number] for number in sorted(chosen))
