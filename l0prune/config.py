"""Settings of a run, as frozen dataclasses."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

from l0prune.errors import ConfigError, nearest
from l0prune.support import Setting, check_fields

IMPORTANCES = ("magnitude", "activation", "taylor", "fisher", "random")
"""What can rank units without training."""

ControllerKind = Literal["lagrangian", "pi", "projected"]

CONTROLLERS = get_args(ControllerKind)
"""Kinds of controllers."""

# Numbers with a range, as the fields below have them.
Positive = Annotated[float, Setting(gt=0)]
NotNegative = Annotated[float, Setting(ge=0)]
Steps = Annotated[int, Setting(ge=0)]
Counted = Annotated[int, Setting(ge=1)]
Share = Annotated[float, Setting(ge=0, lt=1)]
Inside = Annotated[float, Setting(gt=0, lt=1)]


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """Hard Concrete gates."""

    temperature: Positive = 2 / 3
    """beta of eq. 3."""
    low: Annotated[float, Setting(lt=0)] = -0.1
    """Lower end of the stretched interval."""
    high: Annotated[float, Setting(gt=1)] = 1.1
    """Upper end of the stretched interval."""
    drop_rate: Inside = 0.01
    """Where gates start: log_alpha is the logit of 1 - drop_rate."""
    drop_rates: Mapping[str, Inside] = field(default_factory=dict)
    """Other starts by kind of unit, for example { ffn = 0.5 }, the published one, which the recipes have."""
    mask_value: Literal["mean", "published_mask"] = "mean"
    """Value of a kept unit's gate: "mean" of its distribution, or "published_mask", sigmoid(0.8 log_alpha / beta).

    On the embedded teacher the two are alike (final loss 0.163 with either, three seeds each,
    `benchmarks/ablations.py full published-mask`), so the one with a meaning is the default."""
    round_to: int | Literal["auto"] | None = None
    """Widths stay multiples of this many channels; a head counts with all of its own. "auto": what is known to be fast.

    By default 1 in `compress` and "auto" in `wrap` and `prune`; with the metric "latency" what pays on the device."""
    uniform: bool = False
    """All groups of a kind that have equally many units keep equally many, so that layers have one width in common."""
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """A floor and a ceiling by name pattern, shares of the units that a group keeps: { "layers.0.*" = [0.5, 1.0] }."""

    def __post_init__(self) -> None:
        _check_limits(self.limits)
        for rate in (self.drop_rate, *self.drop_rates.values()):
            _check(0 < rate < 1, "drop rate out of range", rate, "between 0 and 1, exclusive")
        whole = isinstance(self.round_to, int) and self.round_to >= 1
        good, expected = self.round_to in (None, "auto") or whole, 'a whole number from 1 on, or "auto"'
        _check(good, "gates.round_to out of range", self.round_to, expected)
        check_fields(self, "gates")

    @property
    def multiple(self) -> int:
        """`round_to` as a number, once "auto" is settled; 1 where nothing is said."""
        return self.round_to if isinstance(self.round_to, int) else 1

    def drop_rate_of(self, kind: str) -> float:
        """The drop rate that gates of this kind of unit start from."""
        return self.drop_rates.get(kind, self.drop_rate)


@dataclass(frozen=True, kw_only=True)
class ControllerConfig:
    """What brings the expected size to its target."""

    kind: ControllerKind = "lagrangian"
    """"lagrangian", the published augmented Lagrangian; "pi", a multiplier set by the gap and its sum; or "projected",
    without multipliers: gates follow what units are worth and meet the target at each step."""
    warmup_steps: Steps = 100
    """Steps over which the target rises from 0."""
    settle_steps: int | None = None
    """After how many steps the choice of units is final, and training goes on without gates; never by default."""
    learning_rate: Positive = 0.02
    """Of gates and multipliers; not of "projected"."""
    quadratic_start: NotNegative = 0.0
    """Of "lagrangian": where lambda2 starts. Above 0 the gap itself pulls from the first step on, and lambda1 does not
    wind up."""
    proportional: NotNegative = 50.0
    """Of "pi": the multiplier's share of the gap."""
    integral: NotNegative = 0.5
    """Of "pi": the multiplier's share of the gaps' sum."""
    look_steps: Steps = 8
    """Of "projected": steps that measure what units are worth before the first one closes."""
    memory: Share = 0.95
    """Of "projected": share of its past in the running mean of what units are worth."""
    group_rate: NotNegative = 0.1
    """Of "projected": how fast whole groups gain or lose units to others by the slope of the loss; 0 for never."""
    sharpness: Positive = 4.0
    """Of "projected": how log_alpha grows with the logarithm of what a unit is worth, at the beginning."""
    final_sharpness: float = 40.0
    """The same at the end of the warm-up: few gates are left between open and closed."""

    def __post_init__(self) -> None:
        check_fields(self, "controller")
        _check(
            self.final_sharpness >= self.sharpness,
            "controller.final_sharpness out of range",
            self.final_sharpness,
            "at least controller.sharpness",
        )
        settles = self.settle_steps is None or self.settle_steps >= self.warmup_steps
        expected = f"at least controller.warmup_steps {self.warmup_steps}"
        _check(settles, "controller.settle_steps out of range", self.settle_steps, expected)


@dataclass(frozen=True, kw_only=True)
class ElasticConfig:
    """Sizes that one run is trained for, all by one order of the units: any of them is cut out afterwards."""

    smallest: Annotated[float | None, Setting(gt=0, lt=1)] = None
    """Share of the size that the smallest network keeps; with it a run is elastic, and has no other target."""
    largest: Annotated[float, Setting(gt=0, le=1)] = 1.0
    """Share that the largest network keeps."""
    sizes: Counted = 1
    """Sizes that each step trains once the order of the units is final; with 1 they take turns over the steps."""

    def __post_init__(self) -> None:
        check_fields(self, "elastic")
        ordered = self.smallest is None or self.smallest < self.largest
        _check(ordered, "elastic.largest out of range", self.largest, f"above elastic.smallest {self.smallest}")

    @property
    def ends(self) -> tuple[float, float] | None:
        """The smallest and the largest share; None where a run is not elastic."""
        return None if self.smallest is None else (self.smallest, self.largest)


@dataclass(frozen=True, kw_only=True)
class CompactionConfig:
    """When units that have closed for good leave the network during the joint stage.

    The defaults were compared with two other rhythms on the embedded teacher (`benchmarks/training.py runs`). The joint
    stage takes 0.84 of its time; 0.88 where all that is below 0.3 goes at the first chance; 0.92 where every 40th step
    looks and a tenth must go. The losses do not differ beyond the seeds' noise.
    """

    enabled: bool = True
    """Whether they leave before the stage ends."""
    closed_below: Inside = 0.05
    """A unit counts as closed while its keep probability is below this."""
    every_steps: Counted = 10
    """Steps between looks at the gates."""
    patience: Counted = 3
    """Looks in a row at which a unit must have been closed."""
    least_share: Share = 0.02
    """Cut only when this share of what is left goes: each cut costs about a step."""

    def __post_init__(self) -> None:
        check_fields(self, "compaction")


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One of the two training stages."""

    steps: Steps
    """Optimizer steps."""
    learning_rate: Positive
    """Peak learning rate of the weights; falls linearly."""
    final_rate: Annotated[float, Setting(ge=0, le=1)] = 0.0
    """Share of the peak learning rate that it falls to; 1 holds it."""
    warmup_steps: Steps = 0
    """Steps over which the learning rate rises linearly."""
    weight_decay: NotNegative = 0.0
    """AdamW's decoupled weight decay, on every trained parameter but gates and multipliers."""
    max_gradient_norm: Positive = 10.0
    """The weights' gradients are scaled down to this norm; those of gates and multipliers are not."""
    micro_batches: Counted = 1
    """Batches whose gradients are averaged in one optimizer step."""
    fake_int8: Annotated[Literal["", "weights", "all"], Setting(later=True)] = ""
    """Round to eight bits while the further stage trains, for a student that is exported in int8: "weights" of linear
    layers and convolutions, or "all", their inputs too."""

    def __post_init__(self) -> None:
        check_fields(self)
        _check(self.warmup_steps <= self.steps, "warmup_steps out of range", self.warmup_steps, "0 to steps")


@dataclass(frozen=True, kw_only=True)
class OneShotConfig:
    """What takes the place of the joint stage where that has no steps."""

    importance: str = "magnitude"
    """Ranks the units: "magnitude", "activation", "taylor", "fisher" or "random". Taylor and Fisher need a loss with a
    gradient, which a student that is a copy of its teacher does not have. On the embedded teacher, half of which is
    removed, magnitude ends at a loss of 0.222 (0.252 without the repair), activation at 0.362 (0.997), from three
    batches: activation removes convolutions, on which layer 0 rests."""
    batches: Counted = 16
    """How many of the first training batches importance and repair see."""
    repair: bool = True
    """Fit what reads the removed units to the dense network by least squares."""

    def __post_init__(self) -> None:
        if self.importance not in IMPORTANCES:
            hint = nearest(self.importance, IMPORTANCES)
            raise ConfigError("no such importance", got=repr(self.importance), hint=hint)
        check_fields(self, "one_shot")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A whole compression run."""

    plugin: str
    """Which plugin prepares model, groups, objective and data."""
    recipe: str = ""
    """The named recipe that these settings came from."""
    target_sparsity: Inside = 0.75
    """Share of the size to remove."""
    metric: str = "params"
    """What the target counts: "params", "layer-params" (parameters of the layers that hold units, without embeddings
    for example), "active-params" (of experts as many as are picked), "macs" (multiply-accumulates), "memory" (of
    weights and activations), "disk", "disk-float16" or "disk-int8" (bytes of the saved weights), "latency" or
    "latency-int8" (measured on the run's device), "blocks" (of depth), or a metric of one's own by its name."""
    target_speedup: Annotated[float | None, Setting(gt=1)] = None
    """With the metric "latency", in place of target_sparsity: how many times faster the pruned network is to be."""
    target_ms: Annotated[float | None, Setting(gt=0)] = None
    """The same as milliseconds for the plugin's example input."""
    target: Mapping[str, float | str] = field(default_factory=dict)
    """What is to be left of several metrics at most, in place of the targets above: { params = 0.25, latency_ms = 40 }.
    Below 1 it is a share of the dense size; a name, or a text such as "40ms", may end in a unit."""
    seed: Annotated[int, Setting(ge=0, lt=2**63)] = 0
    """Of every random draw but the gates' starting noise, which is always the same."""
    device: str = "auto"
    """A torch device, or "auto": a GPU where there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """ "float32", "bfloat16" (autocast), or "auto": bfloat16 where the hardware is faster in it."""
    log_every: Counted = 10
    """Steps between lines of metrics.jsonl."""
    checkpoint_minutes: Annotated[float, Setting(ge=0, may_change=True)] = 5.0
    """Minutes between checkpoints."""
    keep_checkpoints: Annotated[int, Setting(ge=1, may_change=True)] = 2
    """How many checkpoints are left: one more than may be damaged."""
    compile: bool = False
    """Compile the student with torch.compile, layer by layer."""
    gates: GateConfig = field(default_factory=GateConfig)
    controller: ControllerConfig = field(default_factory=ControllerConfig)
    compaction: CompactionConfig = field(default_factory=CompactionConfig)
    elastic: ElasticConfig = field(default_factory=ElasticConfig)
    joint: StageConfig = field(default_factory=lambda: StageConfig(steps=1000, learning_rate=2e-4))
    """Distillation and pruning together. With 0 steps units are removed at once, as `one_shot` says."""
    further: StageConfig = field(default_factory=lambda: StageConfig(steps=500, learning_rate=1e-4))
    """Further distillation of the pruned network."""
    one_shot: OneShotConfig = field(default_factory=OneShotConfig)
    options: Mapping[str, Any] = field(default_factory=dict)
    """The plugin's own settings."""

    def __post_init__(self) -> None:
        in_range = 0 < self.target_sparsity < 1
        _check(in_range, "target sparsity out of range", self.target_sparsity, "between 0 and 1, exclusive")
        check_fields(self)
        # Gates take the place of weights, and what is compiled takes no hooks.
        _check(not self.joint.fake_int8, "joint.fake_int8 is set", self.joint.fake_int8, "further.fake_int8")
        hooked = self.further.fake_int8 != ""
        _check(not (self.compile and hooked), "further.fake_int8 with compile", True, "compile = false")


def _check_limits(limits: object) -> None:
    """Pairs of shares in [0, 1], a floor and a ceiling that is not below it."""
    if not isinstance(limits, Mapping):
        raise ConfigError("limits have the wrong type", got=repr(limits), expected='{"layers.0.*": (0.5, 1.0)}')
    for pattern, pair in limits.items():
        where = f"limits, {pattern!r}"
        numbers = isinstance(pair, list | tuple) and len(pair) == len(("floor", "ceiling"))
        if not numbers or not all(isinstance(share, int | float) for share in pair):
            raise ConfigError("a limit is no pair of shares", where=where, got=repr(pair), expected="(floor, ceiling)")
        for name, share in zip(("floor", "ceiling"), pair, strict=True):
            if not 0 <= share <= 1:
                raise ConfigError(f"{name} of a limit out of range", where=where, got=share, expected="0 to 1")
        if pair[0] > pair[1]:
            expected = f"at most the ceiling {pair[1]:g}"
            raise ConfigError("floor of a limit above its ceiling", where=where, got=pair[0], expected=expected)


def _check(good: bool, what: str, got: object, expected: str) -> None:
    if not good:
        raise ConfigError(what, got=got, expected=expected)
