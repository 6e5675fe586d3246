"""What a compression run has found so far, and what it achieved."""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from l0prune.size import BudgetRow, Facts
from l0prune.support import ReadByName

_MEASURED = ("latency_before_ms", "latency_after_ms", "speedup", "round_to", "latency_model_error")
"""Fields that a metric fills."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Compaction(ReadByName):
    """A cut during the joint stage."""

    step: int
    parameters: int
    """That are left."""
    kept: dict[str, int]
    """Units by group."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ElasticPoint(ReadByName):
    """One size of an elastic run."""

    asked: float
    """The share of the size that it was cut to."""
    left: float
    """The share that it has."""
    parameters: int
    loss: float | None
    """On the held-out batches; None where nothing is held out."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ElasticFacts(ReadByName):
    """What an elastic run has trained."""

    smallest: float
    """Share of the size."""
    largest: float
    metric: str
    """What the shares are of."""
    curve: list[ElasticPoint]
    """Some of its sizes, ascending."""

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """From a JSON object."""
        return super().from_json({**found, "curve": [ElasticPoint.from_json(point) for point in found["curve"]]})


@dataclass(frozen=True, kw_only=True, eq=False)
class CutFacts(ReadByName):
    """How a network was cut out of an elastic run."""

    of: str
    """The run."""
    target: dict[str, str]
    """By metric."""
    polish: int | None
    """Steps of training after the cut."""
    seconds: float


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
    compactions: list[Compaction] = field(default_factory=list)
    latency_before_ms: float | None = None
    latency_after_ms: float | None = None
    speedup: float | None = None
    round_to: int | None = None
    latency_model_error: float | None = None
    targets: list[BudgetRow] = field(default_factory=list)
    selection_gap: float | None = None
    elastic: ElasticFacts | None = None
    metric_facts: Facts = field(default_factory=dict)

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
        for name, kind in (("compactions", Compaction), ("targets", BudgetRow)):
            own[name] = [kind.from_json(row) for row in own.get(name, [])]
        if own.get("elastic") is not None:
            own["elastic"] = ElasticFacts.from_json(own["elastic"])
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
    compactions: list[Compaction] = field(default_factory=list)
    """Cuts during the joint stage."""
    latency_before_ms: float | None = None
    """With the metric "latency": measured at the cut, of the dense and the pruned network in turns."""
    latency_after_ms: float | None = None
    speedup: float | None = None
    round_to: int | None = None
    """What widths are multiples of: with the metric "latency" by default what pays on the device."""
    latency_model_error: float | None = None
    """Median relative error of the latency model on whole networks that it was not fitted to."""
    targets: list[BudgetRow] = field(default_factory=list)
    """Where there are several targets, a row for each."""
    selection_gap: float | None = None
    """How much more the best choice under several budgets may be worth at most, as a share."""
    metric_facts: Facts = field(default_factory=dict)
    """What a metric of one's own has measured, by the names that it gives."""
    elastic: ElasticFacts | None = None
    """Of an elastic run."""
    cut: CutFacts | None = None
    """Of a network that was cut out of an elastic run."""

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)
