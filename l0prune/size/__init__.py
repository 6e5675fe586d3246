"""What a network's size is for any choice of units: parameters, multiply-accumulates, time, or what one registers."""

from l0prune.size.active import ActiveParameters
from l0prune.size.answers import checked_facts
from l0prune.size.disk import Disk
from l0prune.size.latency import Latency
from l0prune.size.limits import Bounds, Limits, bounds_of
from l0prune.size.macs import mac_size
from l0prune.size.memory import Memory, memory_size
from l0prune.size.metric import Cut, Facts, Metric, Subject, Target, metric_named, noun_of, register_metric
from l0prune.size.parameters import parameter_size
from l0prune.size.peak import PeakSize
from l0prune.size.polynomial import SizeModel, unit_sizes
from l0prune.size.ranking import classes_of
from l0prune.size.rounding import RoundTo, width_facts
from l0prune.size.selection import budget_for, kept_indices, select, split_by_group
from l0prune.size.several import Budget, BudgetRow, choose, explained
from l0prune.size.targets import (
    Asked,
    Targets,
    budgets_of,
    check_within,
    joint_target,
    parse_targets,
    read_targets,
    removing,
)
from l0prune.size.wish import Wish

__all__ = [
    "ActiveParameters",
    "Asked",
    "Bounds",
    "Budget",
    "BudgetRow",
    "Cut",
    "Disk",
    "Facts",
    "Latency",
    "Limits",
    "Memory",
    "Metric",
    "PeakSize",
    "RoundTo",
    "SizeModel",
    "Subject",
    "Target",
    "Targets",
    "Wish",
    "bounds_of",
    "budget_for",
    "budgets_of",
    "check_within",
    "checked_facts",
    "choose",
    "classes_of",
    "explained",
    "joint_target",
    "kept_indices",
    "mac_size",
    "memory_size",
    "metric_named",
    "noun_of",
    "parameter_size",
    "parse_targets",
    "read_targets",
    "register_metric",
    "removing",
    "select",
    "split_by_group",
    "unit_sizes",
    "width_facts",
]
