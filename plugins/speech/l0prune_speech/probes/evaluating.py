"""Models through all tasks: data checked, hidden states extracted once a model, probes trained from each seed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch

from l0prune import ConfigError, DataError, Evaluation, EvaluationSettings, LayerComparison, counted, pick_device
from l0prune.support import versions
from l0prune_speech.data import Framing
from l0prune_speech.options import PACKAGES
from l0prune_speech.probes.catalogue import TASKS
from l0prune_speech.probes.checks import check_overlap
from l0prune_speech.probes.corpora import open_sets
from l0prune_speech.probes.features import (
    FILTERBANKS,
    Features,
    Frontend,
    check_lengths,
    extract,
    open_frontend,
)
from l0prune_speech.probes.labelled import LabelledSet, Segment
from l0prune_speech.probes.scoring import score
from l0prune_speech.probes.similarity import compare
from l0prune_speech.probes.tasks import PROBES
from l0prune_speech.probes.thinning import thinned

_COMPARED_SECONDS = 120.0
_ALONE = "evaluate it by itself, or --against a model of the same frames"

Note = Callable[[str], None]


def evaluate_models(models: Sequence[str], settings: EvaluationSettings, note: Note) -> Evaluation:
    """Score models on tasks, and compare their layers with those of the model they are held against.

    Args:
        models: As `open_frontend` takes them.
        settings: What to do.
        note: Told how far it is.

    Raises:
        ConfigError: There is no such model, no data for a task, or too few minutes of it.
        DataError: Labels and audio do not fit each other, or a model cannot hear a clip, or not in the same frames as
            the one that it is held against.
    """
    device = pick_device(settings.device)
    # All that can be seen to be wrong is, before the first word and the first measurement.
    sets = _sets(settings)
    frontends = {model: open_frontend(model, device) for model in models}
    _check_framings({model: frontend.framing for model, frontend in frontends.items()}, sets, settings.against)
    for line in dict.fromkeys(line for labelled in sets.values() for line in labelled.notes):
        note(line)
    for task, labelled in sets.items():
        counts = [f"{count} {name.replace('_', ' ')}" for name, count in PROBES[task].facts(labelled).items()]
        clips = f"{len(labelled.train)} clips to train on, {len(labelled.test)} to test on"
        note(f"{task}: {', '.join([clips, *counts])}")
    compared = _compared(sets) if settings.against in frontends else []
    scores, layers = [], []
    reference: Features | None = None
    for model in sorted(frontends, key=lambda name: name != settings.against):
        note(f"{model}: hearing the clips")
        features = _features(frontends[model], sets, compared)
        for task, labelled in sets.items():
            note(f"{model}: {task}, {counted(len(settings.seeds), 'probe')}")
            scores.append(score(model, task, features, labelled, settings, device))
        if model == settings.against:
            reference = features.only(compared)
        elif reference is not None and model not in FILTERBANKS:
            layers += _compare(model, features, reference, compared)
    return Evaluation(
        models={model: _facts(frontend) for model, frontend in frontends.items()},
        tasks={task: _describe(task, labelled) for task, labelled in sets.items()},
        scores=scores,
        layers=layers,
        against=settings.against,
        seeds=settings.seeds,
        shuffled_labels=settings.shuffle_labels,
        versions=versions(*PACKAGES),
    )


def _sets(settings: EvaluationSettings) -> dict[str, LabelledSet]:
    """The checked set of each task that was asked for, or for which there is one."""
    found = open_sets(settings.data, settings.tasks)
    missing = sorted(set(settings.tasks) - set(found))
    if missing:
        hint = f"the data serve {', '.join(sorted(found)) or 'no task'}"
        raise ConfigError("no data for the task", where=missing[0], hint=hint)
    if not found:
        hint = "each task needs clips to train on, and of its kind to test on"
        raise DataError(
            "the data serve no task", where=", ".join(settings.data), expected=" or ".join(TASKS), hint=hint
        )
    sets = {task: found[task] for task in TASKS if task in (settings.tasks or found)}
    for task, labelled in sets.items():
        check_overlap(labelled)
        PROBES[task].check(labelled)
        sets[task] = _thinned(task, labelled, settings.max_minutes)
    return sets


def _thinned(task: str, labelled: LabelledSet, minutes: float) -> LabelledSet:
    """A part of a set that serves as a whole, if the part does too."""
    part = thinned(labelled, minutes)
    try:
        PROBES[task].check(part)
    except DataError as error:
        got, hint = f"{minutes:g}, which leave {error.what}", "raise --max-minutes"
        raise ConfigError("max_minutes is too small for the task", where=task, got=got, hint=hint) from error
    before, after = (len(given.train) + len(given.test) for given in (labelled, part))
    bounded = (
        f"{task}: {after:,} of {before:,} clips are used: --max-minutes {minutes:g} bounds the audio of each split"
    )
    return replace(part, notes=(*labelled.notes, *([bounded] if after < before else [])))


def _check_framings(framings: Mapping[str, Framing], sets: Mapping[str, LabelledSet], against: str | None) -> None:
    """Raise a `DataError` where a model cannot do a task, or its layers cannot be compared."""
    teacher = framings.get(against) if against else None
    for model, framing in framings.items():
        for task, labelled in sets.items():
            check_lengths(framing, (example.segment for example in (*labelled.train, *labelled.test)))
            PROBES[task].check_frames(labelled, framing)
        if teacher and model not in FILTERBANKS:
            _check_same_frames(model, framing, teacher)


def _check_same_frames(model: str, framing: Framing, teacher: Framing) -> None:
    if framing.per_second != teacher.per_second:
        raise DataError(
            "frame rate differs from the teacher's",
            where=model,
            got=f"{framing.per_second:g} frames a second",
            expected=f"{teacher.per_second:g}",
            hint=_ALONE,
        )
    if framing != teacher:
        # The rate is the same, and so is the number of frames in most clips, but not in all.
        raise DataError(
            "frames differ from the teacher's",
            where=model,
            got=f"{framing.shortest_samples} samples for the first one",
            expected=teacher.shortest_samples,
            hint=_ALONE,
        )


def _compared(sets: Mapping[str, LabelledSet]) -> list[Segment]:
    """Evenly spaced test clips, two minutes of them at most."""
    segments = {example.segment.name: example.segment for given in sets.values() for example in given.test}
    ordered = [segments[name] for name in sorted(segments)]
    stride = max(1, -(-sum(part.duration_seconds for part in ordered) // _COMPARED_SECONDS))
    return ordered[:: int(stride)]


def _features(frontend: Frontend, sets: Mapping[str, LabelledSet], compared: Sequence[Segment]) -> Features:
    """What all tasks and the comparison need of a model."""
    segments, with_frames = list(compared), {part.name for part in compared}
    for task, labelled in sets.items():
        own = [example.segment for example in (*labelled.train, *labelled.test)]
        segments += own
        with_frames |= {part.name for part in own} if PROBES[task].reads_frames else set()
    return extract(frontend, segments, with_frames=with_frames)


def _compare(model: str, features: Features, reference: Features, compared: Sequence[Segment]) -> list[LayerComparison]:
    """Each layer with the teacher's at the same relative depth."""
    states, teacher = (
        torch.cat([given.frames[part.name] for part in compared], dim=1) for given in (features, reference)
    )
    depth, teacher_depth = len(states) - 1, len(teacher) - 1
    return [
        LayerComparison(
            model=model,
            layer=layer,
            teacher_layer=(matched := round(layer * teacher_depth / depth)),
            measures=asdict(compare(states[layer], teacher[matched])),
        )
        for layer in range(depth + 1)
    ]


def _facts(frontend: Frontend) -> dict[str, Any]:
    return {"parameters": frontend.parameters, "frames_per_second": frontend.framing.per_second}


def _describe(task: str, labelled: LabelledSet) -> dict[str, Any]:
    return {
        "metric": TASKS[task].metric,
        "higher_is_better": TASKS[task].higher_is_better,
        "chance": PROBES[task].chance(labelled),
        "probe_revision": PROBES[task].revision,
        "data": labelled.name,
        "train_clips": len(labelled.train),
        "test_clips": len(labelled.test),
        "minutes": labelled.seconds / 60,
        "notes": list(labelled.notes),
        **PROBES[task].facts(labelled),
    }
