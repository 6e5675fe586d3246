"""Pruning in a training loop of one's own."""

from l0prune.pruner.inspection import ANY_MODEL_TOLERANCE, Inspection, inspect
from l0prune.pruner.preparing import prepared
from l0prune.pruner.pruner import L0Pruner
from l0prune.pruner.report import PruningReport
from l0prune.pruner.schedule import gated_share, scheduled
from l0prune.pruner.wrapping import wrap

__all__ = [
    "ANY_MODEL_TOLERANCE",
    "Inspection",
    "L0Pruner",
    "PruningReport",
    "gated_share",
    "inspect",
    "prepared",
    "scheduled",
    "wrap",
]
