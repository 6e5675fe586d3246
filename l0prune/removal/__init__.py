"""Removal plans, and cutting a network by one."""

from l0prune.removal.apply import apply_plan, scale_along
from l0prune.removal.bypassed import Bypassed, Skipped
from l0prune.removal.plan import GRAPH, MODULE, RemovalPlan, check_shapes, make_plan, plan_of, remember, remembered

__all__ = [
    "GRAPH",
    "MODULE",
    "Bypassed",
    "RemovalPlan",
    "Skipped",
    "apply_plan",
    "check_shapes",
    "make_plan",
    "plan_of",
    "remember",
    "remembered",
    "scale_along",
]
