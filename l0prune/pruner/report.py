"""What pruning in one's own training loop achieved."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from torch import nn

from l0prune.gates import GatedModel, Sparsity
from l0prune.measuring import parameters
from l0prune.pruner.inspection import Inspection
from l0prune.removal import RemovalPlan
from l0prune.size import BudgetRow, Target, width_facts


@dataclass(frozen=True, kw_only=True)
class PruningReport:
    """What pruning in one's own training loop achieved."""

    metric: str
    """What the target counts."""
    target_sparsity: float
    sparsity: float
    """Of what the metric counts."""
    expected_sparsity: float
    """Under the gates at the cut: far from `sparsity`, the cut removed what training still used."""
    params_before: int
    params_after: int
    macs_before: int | None
    """Multiply-accumulates on the example inputs; None where they could not be counted."""
    macs_after: int | None
    max_relative_difference: float
    """Between the gated and the pruned model's outputs."""
    steps: int
    """Optimizer steps made."""
    kept_units: dict[str, dict[str, int]]
    """By group: `units` and `kept`."""
    left_alone: dict[str, str]
    """Why other hidden units were not pruned, by the name of their layer."""
    target_at_cut: float | None = None
    """What the controller asked for at the step of the cut: below `target_sparsity` in the warm-up."""
    forced_units: int = 0
    """Units on which the cut decided otherwise than their gates: open ones removed, closed ones kept."""
    loss_before_cut: float | None = None
    """Of the caller's evaluation, with gates as in training; None where there is none."""
    loss_after_cut: float | None = None
    """The same for the pruned model."""

    round_to: int | None = None
    """What widths are multiples of, where a group has more channels than that."""
    widths: dict[str, int] = field(default_factory=dict)
    """How many `widths` the pruned groups have, and how many are `multiples_of_8` and `multiples_of_16`."""
    targets: list[BudgetRow] = field(default_factory=list)
    """Where there are several targets, a row for each."""
    selection_gap: float | None = None
    """How much more the best choice under several budgets may be worth at most, as a share."""
    measured: dict[str, Any] = field(default_factory=dict)
    """What the metric measured: with "latency" `latency_before_ms`, `latency_after_ms`, `speedup` and the like."""

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)


def report_of(
    inspection: Inspection,
    target: Target,
    gated: GatedModel,
    plan: RemovalPlan,
    pruned: nn.Module,
    facts: Mapping[str, Any],
    *,
    left: float | None,
    now: Sparsity | None,
    **told: Any,
) -> PruningReport:
    """What a cut achieved.

    Args:
        inspection: Of the model before its gates.
        target: What was asked for.
        gated: The gated model, with its gates as they were at the cut.
        plan: What the cut has removed of it.
        pruned: The cut network.
        facts: What the metric has measured.
        left: Of an elastic run the share of the size that stays.
        now: What the gates were at; None at one size of an elastic run.
        told: Further fields, as they are.

    Raises:
        ConfigError: The metric gives no number.
    """
    kept = np.array([len(plan.kept[group.name]) for group in plan.groups])
    macs = inspection.mac_model
    sparsity = 1 - target.left(kept, facts)
    asked = target.asked if left is None else 1 - left
    if now is None:
        # At one size of an elastic run gates are 0 or 1.
        now = Sparsity(sparsity, asked)
    targets, gap = gated.budget_facts(target)
    return PruningReport(
        metric=target.metric.name,
        target_sparsity=asked,
        sparsity=sparsity,
        params_before=inspection.parameter_model.total,
        params_after=parameters(pruned),
        macs_before=macs.total if macs else None,
        macs_after=macs.exact(kept) if macs else None,
        expected_sparsity=now.expected,
        target_at_cut=now.target,
        forced_units=gated.gates.forced() if left is None else 0,
        kept_units={
            group.name: {"kept": count, "units": group.units}
            for group, count in zip(plan.groups, kept.tolist(), strict=True)
        },
        left_alone=inspection.refused,
        measured=dict(facts),
        round_to=target.round_to,
        widths=width_facts(plan.groups, plan.kept_counts),
        targets=targets,
        selection_gap=gap,
        **told,
    )
