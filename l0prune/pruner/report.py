"""What pruning in one's own training loop achieved."""

from dataclasses import asdict, dataclass, field
from typing import Any


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
    targets: list[dict[str, Any]] = field(default_factory=list)
    """Where there are several targets, a row for each: `metric`, `counts` and `unit`, the `dense` size, the `budget`,
    the `size` of the selection, whether it `binds`, and what it `alone` would allow: the size in each metric, and
    `alone_units`, the share of units that would stay."""
    selection_gap: float | None = None
    """How much more the best choice under several budgets may be worth at most, as a share."""
    measured: dict[str, Any] = field(default_factory=dict)
    """What the metric measured: with "latency" `latency_before_ms`, `latency_after_ms`, `speedup` and the like."""

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)
