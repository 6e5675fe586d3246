"""Students that learn from a teacher: the loss, and the teacher's states."""

from l0prune_speech.distillation.objective import PUBLISHED, Distillation, matched_layers, set_dropout
from l0prune_speech.distillation.targets import TargetCache, check_room, teacher_digest
from l0prune_speech.distillation.task_objective import TaskDistillation, TaskWeights
from l0prune_speech.distillation.terms import Term, all_terms, check_weights, register_term

__all__ = [
    "PUBLISHED",
    "Distillation",
    "TargetCache",
    "TaskDistillation",
    "TaskWeights",
    "Term",
    "all_terms",
    "check_room",
    "check_weights",
    "matched_layers",
    "register_term",
    "set_dropout",
    "teacher_digest",
]
