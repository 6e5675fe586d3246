"""What a baseline is before it is trained, and what all baselines share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from l0prune_speech.distillation import Distillation
from l0prune_speech.encoder import SpeechEncoder, build_encoder, slim_config

from l0prune import ConfigError, RunConfig, Task
from l0prune.measuring import parameters


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """A student before training, in the form in which it is trained and counted."""

    student: SpeechEncoder
    mode: str | None = None
    """Of distillation; the recipe's by default."""
    layers: tuple[int, ...] | None = None
    """The teacher's, to be matched; the recipe's by default."""
    finish: Callable[[SpeechEncoder], SpeechEncoder] = lambda student: student
    """Gives the trained student the form in which it is kept."""


Begin = Callable[[Task, RunConfig, int], Beginning]
"""Task, settings and budget -> a student of at most `budget` parameters."""


def objective_of(task: Task) -> Distillation:
    """The distillation of a speech task; its student is a copy of the teacher."""
    assert isinstance(task.objective, Distillation)
    return task.objective


def student_of(task: Task) -> SpeechEncoder:
    """The copy of the teacher that the task would prune."""
    student = task.objective.student
    assert isinstance(student, SpeechEncoder)
    return student


def dense_config(task: Task) -> dict[str, Any]:
    """What `build_encoder` makes the teacher from.

    Raises:
        ConfigError: The teacher is pruned: its layers have no common width to scale.
    """
    config = slim_config(student_of(task))
    if "encoder_remaining_heads" in config or not isinstance(config["encoder_ff_interm_features"], int):
        raise ConfigError("baseline needs a dense teacher", where=task.teacher, got="widths that differ by layer")
    return config


def size_of(config: Mapping[str, Any]) -> int:
    """Parameters of the encoder of a configuration."""
    with torch.device("meta"):
        return parameters(build_encoder(config))
