"""Training with gates: objective, stages, records."""

from l0prune.training.compiling import compiler_settings_kept
from l0prune.training.objective import Losses, Objective, evaluate
from l0prune.training.records import Record
from l0prune.training.sharing import shared, split_for
from l0prune.training.stage import Stage

__all__ = [
    "Losses",
    "Objective",
    "Record",
    "Stage",
    "compiler_settings_kept",
    "evaluate",
    "shared",
    "split_for",
]
