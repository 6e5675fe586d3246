"""Whether a cut changes anything: gated against pruned outputs, group by group."""

from l0prune.proof.exactness import RUN_TOLERANCE, compare, objection, relative_difference, run_seeded, tolerance_for
from l0prune.proof.noise import decibels, relative_noise
from l0prune.proof.training_mode import find_training_faults
from l0prune.proof.trials import EVERYTHING, KEEP_ALL, find_faults, prove_groups, prove_on_copy

__all__ = [
    "EVERYTHING",
    "KEEP_ALL",
    "RUN_TOLERANCE",
    "compare",
    "decibels",
    "find_faults",
    "find_training_faults",
    "objection",
    "prove_groups",
    "prove_on_copy",
    "relative_difference",
    "relative_noise",
    "run_seeded",
    "tolerance_for",
]
