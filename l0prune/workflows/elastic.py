"""The networks of an elastic run at some of its sizes: each is cut, proved and scored."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from l0prune.calibration import renew_statistics
from l0prune.errors import ProofError
from l0prune.gates import Controller, GatedModel
from l0prune.measuring import parameters
from l0prune.plugin import Task
from l0prune.proof import RUN_TOLERANCE, compare, objection
from l0prune.removal import RemovalPlan
from l0prune.size import split_by_group
from l0prune.storage import Order
from l0prune.support import evaluating
from l0prune.training import evaluate
from l0prune.workflows.calibrating import loss_with
from l0prune.workflows.results import ElasticFacts, ElasticPoint

_POINTS = 5
"""Of the curve, at equal distances."""


@dataclass(frozen=True, kw_only=True)
class TrainedSizes:
    """What an elastic run has trained."""

    largest: tuple[nn.Module, RemovalPlan]
    """The network of the largest size, and what it lacks of the dense one."""
    order: Order
    facts: ElasticFacts
    """For the report."""
    difference: float
    """The largest relative difference between gated and cut outputs at any point of the curve."""


def trained_sizes(
    gated: GatedModel, controller: Controller, task: Task, batches: list[Any], metric: str, note: Callable[[str], None]
) -> TrainedSizes:
    """Cut a trained network to some sizes, prove each cut, and measure the loss of what is left.

    Args:
        gated: The trained network with gates, in evaluation mode.
        controller: Of its gates.
        task: With held-out batches.
        batches: This process's calibration batches, for running statistics of batch norms.
        metric: What shares are of.
        note: Told of each size.

    Raises:
        ProofError: A cut is not exact.
    """
    elastic = controller.elastic
    low, high = elastic.ends
    curve, worst, size = list[ElasticPoint](), 0.0, gated.size_model
    held_out, dense = list(task.evaluation), gated.model
    largest: tuple[nn.Module, RemovalPlan] | None = None
    for left in np.linspace(low, high, _POINTS).tolist():
        with controller.at(left):
            pruned, plan = gated.pruned()
            difference = compare(gated, task.observe, pruned=pruned)
            if reason := objection(gated, task.observe, difference, RUN_TOLERANCE):
                raise ProofError("the cut changed the outputs", where=f"{left:g} of the size", got=reason)
        with evaluating(task.objective):
            renew_statistics(pruned, batches, loss_with(task))
        task.objective.student = pruned
        try:
            loss = evaluate(task.objective, held_out)[0] if held_out else None
        finally:
            task.objective.student = dense
        counts = np.array([plan.kept_counts[group.name] for group in plan.groups])
        share = size.exact(counts) / size.total
        curve.append(ElasticPoint(asked=left, left=share, parameters=parameters(pruned), loss=loss))
        said = "" if loss is None else f", loss {loss:.4f}"
        note(f"size {share:.4f}: {parameters(pruned):,} parameters{said}; outputs changed by {difference:.1e}")
        worst, largest = max(worst, difference), (pruned, plan)
    assert largest is not None
    config = gated.gates.config
    order = Order(
        smallest=low,
        largest=high,
        metric=metric,
        round_to=config.multiple,
        uniform=config.uniform,
        limits={pattern: list(pair) for pattern, pair in config.limits.items()},
        scores={n: row.tolist() for n, row in split_by_group(elastic.scores(gated.gates), gated.groups).items()},
        files=list(task.files),
    )
    facts = ElasticFacts(smallest=low, largest=high, metric=metric, curve=curve)
    return TrainedSizes(largest=largest, order=order, facts=facts, difference=worst)
