"""The tasks: which probe, trained how fast, checked and scored how."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from l0prune_speech.data import Framing
from l0prune_speech.probes import clips, phones
from l0prune_speech.probes.checks import check_classes
from l0prune_speech.probes.features import Features
from l0prune_speech.probes.fitting import Outcome, Trial
from l0prune_speech.probes.held_out import class_folds, clip_folds
from l0prune_speech.probes.labelled import LabelledSet


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A task as it is carried out."""

    attempt: Callable[[Features, LabelledSet, Trial], Outcome]
    """Trains a head and tests it."""
    learning_rates: tuple[float, ...]
    """Of which the one that is best on held-out parts of the training set is taken, for each model."""
    folds: Callable[[LabelledSet], Sequence[LabelledSet]]
    """Those parts to test on, with what is left to train on; none where the set is too small."""
    check: Callable[[LabelledSet], None]
    """Raises a `DataError` where a set does not serve."""
    check_frames: Callable[[LabelledSet, Framing], None] = lambda _labelled, _framing: None
    """Raises a `DataError` where a model's frames cannot carry the labels."""
    chance: Callable[[LabelledSet], float]
    """The score of who hears nothing."""
    facts: Callable[[LabelledSet], Mapping[str, int]] = lambda _labelled: {}
    """What else there is to say of a set."""
    reads_frames: bool = False
    """Not their means."""
    revision: int = 1
    """Another one whenever the probe gives other scores: those of two revisions are not to be compared."""


_CLASSES = Probe(
    attempt=clips.classify,
    learning_rates=(1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
    folds=lambda labelled: clip_folds(labelled, 4),
    check=lambda labelled: check_classes(labelled, unseen=False),
    chance=clips.chance,
)
PROBES: Mapping[str, Probe] = {
    "keyword": _CLASSES,
    "speaker": _CLASSES,
    "phone": Probe(
        attempt=phones.recognise,
        # One that serves all: at so many steps, its probes take longest.
        learning_rates=(1e-1,),
        folds=lambda _labelled: (),
        check=phones.check,
        check_frames=phones.check_frames,
        # Of who says nothing.
        chance=lambda _labelled: 1.0,
        reads_frames=True,
        revision=2,
    ),
    "verification": Probe(
        attempt=clips.verify,
        learning_rates=(1e-3, 3e-3, 1e-2, 3e-2),
        folds=lambda labelled: class_folds(labelled, 3),
        check=clips.check_trials,
        chance=lambda _labelled: 0.5,
        facts=clips.count_trials,
    ),
}
