"""What a network's size is for any choice of units: parameters, multiply-accumulates or time."""

from l0prune.size.macs import mac_size
from l0prune.size.parameters import parameter_size
from l0prune.size.polynomial import SizeModel, unit_sizes
from l0prune.size.selection import budget_for, kept_indices, select, split_by_group

__all__ = [
    "SizeModel",
    "budget_for",
    "kept_indices",
    "mac_size",
    "parameter_size",
    "select",
    "split_by_group",
    "unit_sizes",
]
