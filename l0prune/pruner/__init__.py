"""Pruning in a training loop of one's own."""

from l0prune.pruner.inspection import ANY_MODEL_TOLERANCE, Form, Inspection, inspect
from l0prune.pruner.preparing import prepared
from l0prune.pruner.pruner import L0Pruner
from l0prune.pruner.report import PruningReport
from l0prune.pruner.schedule import GATED_SHARE, scheduled
from l0prune.pruner.wrapping import wrap

__all__ = [
    "ANY_MODEL_TOLERANCE",
    "GATED_SHARE",
    "Form",
    "Inspection",
    "L0Pruner",
    "PruningReport",
    "inspect",
    "prepared",
    "scheduled",
    "wrap",
]
