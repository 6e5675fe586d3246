"""What a compression run has found so far, and what it achieved."""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

_MEASURED = ("latency_before_ms", "latency_after_ms", "speedup", "round_to", "latency_model_error")
"""Fields that a metric fills."""


@dataclass(kw_only=True)
class RunResults:
    """What a run has found so far. Its steps add to it, checkpoints hold it, and the report is made from it."""

    stage_seconds: dict[str, float] = field(default_factory=dict)
    step_seconds: dict[str, float] = field(default_factory=dict)
    skipped_steps: int = 0
    macs_before: int | None = None
    max_relative_difference: float | None = None
    expected_sparsity_at_cut: float | None = None
    forced_units: int | None = None
    distill_loss_gated: float | None = None
    distill_loss_before_removal: float | None = None
    distill_loss_after_removal: float | None = None
    distill_loss_after_repair: float | None = None
    compactions: list[dict[str, Any]] = field(default_factory=list)
    latency_before_ms: float | None = None
    latency_after_ms: float | None = None
    speedup: float | None = None
    round_to: int | None = None
    latency_model_error: float | None = None
    targets: list[dict[str, Any]] = field(default_factory=list)
    selection_gap: float | None = None
    elastic: dict[str, Any] | None = None
    metric_facts: dict[str, Any] = field(default_factory=dict)

    def learn(self, facts: Mapping[str, Any]) -> None:
        """Add what a metric has measured."""
        for name, value in facts.items():
            if name in _MEASURED:
                setattr(self, name, value)
            else:
                self.metric_facts[name] = value

    def facts(self) -> dict[str, Any]:
        """What is known so far, by name, with a metric's own facts beside the others; what checkpoints hold."""
        known = {name: value for name, value in asdict(self).items() if value is not None and name != "metric_facts"}
        return copy.deepcopy(self.metric_facts) | known

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """What `facts` gave, of an earlier version too."""
        names = {one.name for one in fields(cls)} - {"metric_facts"}
        facts = copy.deepcopy(dict(facts))
        own = {name: value for name, value in facts.items() if name in names}
        return cls(**own, metric_facts={name: value for name, value in facts.items() if name not in names})


@dataclass(frozen=True, kw_only=True)
class CompressionReport:
    """The content of report.json."""

    plugin: str
    recipe: str
    teacher: str
    run_directory: str
    params_before: int
    params_after: int
    metric: str
    """What the target counts: "params" or "latency" for example."""
    target_sparsity: float
    sparsity: float
    """Of what the metric counts."""
    macs_before: int
    """Multiply-accumulates, per `macs_per`."""
    macs_after: int | None
    """None where a cut out of an elastic run cannot be run without weights, as with an operator of one's own."""
    macs_per: str
    kinds: dict[str, dict[str, str]]
    """What pictures call the kinds of unit: `title` and `axis`."""
    kept_units: dict[str, dict[str, int]]
    """By group: its kind's name is in the plan; `units` and `kept`."""
    max_relative_difference: float
    """Between the gated and the pruned network's outputs, at the cut."""
    distill_loss_before_removal: float | None
    """On the held-out batches, as the two below: gated, just before the cut. None where nothing is held out."""
    distill_loss_after_removal: float | None
    """Pruned, just after the cut."""
    distill_loss_final: float | None
    """After the last step."""
    losses_final: dict[str, float]
    """Parts of the final loss."""
    stage_seconds: dict[str, float]
    """Of training, by stage."""
    step_seconds: dict[str, float]
    """Mean over the stage's optimizer steps."""
    skipped_steps: int
    """Optimizer steps left out because of a non-finite loss or gradient."""
    peak_memory_bytes: int
    """Allocated on the GPU; on a CPU, of the whole process."""
    device: str
    precision: str
    versions: dict[str, str]
    seed: int
    distill_loss_after_repair: float | None = None
    """After the least-squares repair of a run without a joint stage."""
    forced_units: int | None = None
    """Units on which the cut decided otherwise than their gates: open ones removed, closed ones kept."""
    distill_loss_gated: float | None = None
    """On the held-out batches, with gates as in training, just before the cut."""
    expected_sparsity_at_cut: float | None = None
    """Under the gates, just before the cut: far from the target, it removed what training still used."""
    compactions: list[dict[str, Any]] = field(default_factory=list)
    """Cuts during the joint stage: `step`, `parameters` left, units `kept` by group."""
    latency_before_ms: float | None = None
    """With the metric "latency": measured at the cut, of the dense and the pruned network in turns."""
    latency_after_ms: float | None = None
    speedup: float | None = None
    round_to: int | None = None
    """What widths are multiples of: with the metric "latency" by default what pays on the device."""
    latency_model_error: float | None = None
    """Median relative error of the latency model on whole networks that it was not fitted to."""
    targets: list[dict[str, Any]] = field(default_factory=list)
    """Where there are several targets, a row for each: `metric`, `counts` and `unit`, the `dense` size, the `budget`,
    the `size` of the selection, whether it `binds`, and what it `alone` would allow."""
    selection_gap: float | None = None
    """How much more the best choice under several budgets may be worth at most, as a share."""
    metric_facts: dict[str, Any] = field(default_factory=dict)
    """What a metric of one's own has measured."""
    elastic: dict[str, Any] | None = None
    """Of an elastic run: `smallest` and `largest` share of the size, and a `curve` with a row for each of some sizes:
    what it was asked for and is (`left`), `parameters`, and `loss` on the held-out batches."""
    cut: dict[str, Any] | None = None
    """Of a network that was cut out of an elastic run: `of` which one, `target`, steps of its `polish`, `seconds`."""

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)
