"""What a network's size is for any choice of units: parameters, multiply-accumulates, time, or what one registers."""

from l0prune.size.latency import Latency
from l0prune.size.macs import mac_size
from l0prune.size.metric import Cut, Metric, Subject, Target, Wish, metric_named, noun_of, register_metric
from l0prune.size.parameters import parameter_size
from l0prune.size.polynomial import SizeModel, unit_sizes
from l0prune.size.rounding import RoundTo, width_facts
from l0prune.size.selection import budget_for, classes_of, kept_indices, select, split_by_group

__all__ = [
    "Cut",
    "Latency",
    "Metric",
    "RoundTo",
    "SizeModel",
    "Subject",
    "Target",
    "Wish",
    "budget_for",
    "classes_of",
    "kept_indices",
    "mac_size",
    "metric_named",
    "noun_of",
    "parameter_size",
    "register_metric",
    "select",
    "split_by_group",
    "unit_sizes",
    "width_facts",
]
