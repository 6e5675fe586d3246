"""What a task's units are, kind by kind and group by group."""

from typing import Any

import numpy as np

from l0prune.gates import GatedModel
from l0prune.plugin import Task
from l0prune.proof import EVERYTHING, KEEP_ALL, find_faults
from l0prune.size import unit_sizes


def inspect_groups(task: Task) -> list[dict[str, Any]]:
    """One row a group: name, kind, units, parameters of a unit in the dense network, proved, reason.

    Args:
        task: Network, groups and example inputs; gates are attached to its student and taken off again.
    """
    gated = GatedModel(task.objective.student, task.groups, target_sparsity=KEEP_ALL).eval()
    try:
        _, faults = find_faults(gated, task.observe)
    finally:
        gated.detach()
    everything = faults.get(EVERYTHING, "")
    return [
        {
            "name": group.name,
            "kind": group.kind,
            "units": group.units,
            "unit_parameters": cost,
            "proved": not (faults.get(group.name) or everything),
            "reason": faults.get(group.name, everything),
        }
        for group, cost in zip(gated.groups, unit_sizes(gated.size_model), strict=True)
    ]


def summarise_kinds(gated: GatedModel) -> list[dict[str, Any]]:
    """One row a kind of unit: kind, groups, units, parameters that go when all of its units do."""
    rows = []
    for kind in dict.fromkeys(group.kind for group in gated.groups):
        mine = np.array([group.kind == kind for group in gated.groups])
        size = gated.parameter_model
        gone = size.total - size.exact(np.where(mine, size.least, size.units))
        rows.append({"kind": kind, "groups": int(mine.sum()), "units": int(size.units[mine].sum()), "parameters": gone})
    return rows
