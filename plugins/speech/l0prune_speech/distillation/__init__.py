"""Students that learn from a teacher: the loss, and the teacher's states."""

from l0prune_speech.distillation.objective import DistanceWeights, Distillation, matched_layers, set_dropout
from l0prune_speech.distillation.targets import TargetCache, check_room, teacher_digest

__all__ = [
    "DistanceWeights",
    "Distillation",
    "TargetCache",
    "check_room",
    "matched_layers",
    "set_dropout",
    "teacher_digest",
]
