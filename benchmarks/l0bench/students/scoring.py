"""What students still know: probes by `l0prune.evaluate`, kept beside each student."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import l0prune
from l0bench.provenance import where
from l0bench.students.making import PLUGIN, Note
from l0prune.support import read_json, write_json

FILTERBANKS, NORMALISED, RANDOM = "filterbanks", "filterbanks:cmvn", "random:"
SCORES = "scores.json"
"""Beside a student."""


@dataclass(frozen=True, kw_only=True)
class Probes:
    """How every model is scored."""

    tasks: tuple[str, ...] = ()
    """All for which there is data by default."""
    data: tuple[str, ...] = ()
    """Labelled sets; the embedded one by default."""
    seeds: tuple[int, ...] = (0, 1, 2)
    device: str = "auto"


def references(teacher: str) -> tuple[str, ...]:
    """What students are held against: the teacher, no network, and the teacher's network without its training."""
    return (teacher, FILTERBANKS, NORMALISED, f"{RANDOM}{teacher}")


def reference_place(folder: Path, name: str) -> Path:
    """Where a reference's scores are kept."""
    return folder / "references" / f"{re.sub(r'[^A-Za-z0-9.-]+', '-', name)}.json"


def scored(model: str, place: Path, probes: Probes, note: Note = print) -> Mapping[str, Any]:
    """The evaluation of a model as JSON, made if it is not there yet or was made with other probes.

    Args:
        model: As `l0prune.evaluate` takes it.
        place: The JSON file in which it is kept.
        probes: Tasks, data and seeds.
        note: Told how far it is.
    """
    found = kept(place, probes)
    if found is not None:
        return found
    # Held against itself: the teacher is scored once, not again beside each student.
    settings = l0prune.EvaluationSettings(
        tasks=probes.tasks, data=probes.data, seeds=probes.seeds, device=probes.device, against=model
    )
    evaluation = l0prune.evaluate([model], plugin=PLUGIN, settings=settings, note=note).to_json()
    # Through text, as it will be read.
    made = where(l0prune.pick_device(probes.device))
    write_json(place, {"asked": _asked(probes), "made": made, "evaluation": evaluation})
    return read_json(place)["evaluation"]


def kept(place: Path, probes: Probes) -> Mapping[str, Any] | None:
    """The evaluation that is there, if it was made with the same probes."""
    found = read_json(place) if place.is_file() else None
    return found["evaluation"] if found and found["asked"] == _asked(probes) else None


def _asked(probes: Probes) -> dict[str, Any]:
    return {"tasks": list(probes.tasks), "data": list(probes.data), "seeds": list(probes.seeds)}


def scores_by_task(evaluation: Mapping[str, Any]) -> dict[str, Sequence[float]]:
    """Scores of the one model in an evaluation, over probe seeds, by task."""
    return {score["task"]: score["values"] for score in evaluation["scores"]}


def tasks_of(evaluation: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What an evaluation says of its tasks, but for where the data stand on this machine."""
    return {task: {**facts, "data": Path(facts["data"]).name} for task, facts in evaluation["tasks"].items()}
