"""Students that learn from a teacher: the loss, and the teacher's states."""

from l0prune_speech.distillation.objective import (
    PUBLISHED,
    Distillation,
    TermSettings,
    check_layers,
    check_terms,
    matched_layers,
    set_dropout,
    unit_layers,
)
from l0prune_speech.distillation.targets import TargetCache, check_room, teacher_digest
from l0prune_speech.distillation.task_objective import TaskDistillation, TaskWeights
from l0prune_speech.distillation.teacher_units import check_frames, check_library
from l0prune_speech.distillation.terms import Term, active, all_terms, check_weights, register_term

__all__ = [
    "PUBLISHED",
    "Distillation",
    "TargetCache",
    "TaskDistillation",
    "TaskWeights",
    "Term",
    "TermSettings",
    "active",
    "all_terms",
    "check_frames",
    "check_layers",
    "check_library",
    "check_room",
    "check_terms",
    "check_weights",
    "matched_layers",
    "register_term",
    "set_dropout",
    "teacher_digest",
    "unit_layers",
]
