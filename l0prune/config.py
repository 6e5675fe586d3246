"""Settings of a run, as frozen dataclasses."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from l0prune.errors import ConfigError, nearest

IMPORTANCES = ("magnitude", "activation", "taylor", "fisher", "random")
"""What can rank units without training."""

CONTROLLERS = ("lagrangian", "pi", "projected")
"""Kinds of controllers."""


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """Hard Concrete gates."""

    temperature: float = 2 / 3
    """beta of eq. 3."""
    low: float = -0.1
    """Lower end of the stretched interval."""
    high: float = 1.1
    """Upper end of the stretched interval."""
    drop_rate: float = 0.01
    """Where gates start: log_alpha is the logit of 1 - drop_rate."""
    drop_rates: Mapping[str, float] = field(default_factory=dict)
    """Other starts by kind of unit, { ffn = 0.5 } say: that is the published one, and the recipes'."""
    mask_value: str = "mean"
    """Value of a kept unit's gate: "mean" of its distribution, or "published_mask", sigmoid(0.8 log_alpha / beta).

    On the embedded teacher the two are alike (final loss 0.163 with either, three seeds each,
    `benchmarks/ablations.py full published-mask`), so the one with a meaning is the default."""
    round_to: int | None = None
    """Widths stay multiples of this many channels; a head counts with all of its own.

    By default 1, and with the metric "latency" what pays on the device."""

    def __post_init__(self) -> None:
        _check(self.temperature > 0, "gates.temperature out of range", self.temperature, "above 0")
        _check(self.low < 0, "gates.low out of range", self.low, "below 0")
        _check(self.high > 1, "gates.high out of range", self.high, "above 1")
        for rate in (self.drop_rate, *self.drop_rates.values()):
            _check(0 < rate < 1, "drop rate out of range", rate, "between 0 and 1, exclusive")
        values = ("mean", "published_mask")
        _check(self.mask_value in values, "unknown gates.mask_value", self.mask_value, " or ".join(values))
        whole = isinstance(self.round_to, int) and self.round_to >= 1
        _check(self.round_to is None or whole, "gates.round_to out of range", self.round_to, "a whole number from 1 on")

    def drop_rate_of(self, kind: str) -> float:
        """The drop rate that gates of this kind of unit start from."""
        return self.drop_rates.get(kind, self.drop_rate)


@dataclass(frozen=True, kw_only=True)
class ControllerConfig:
    """What brings the expected size to its target."""

    kind: str = "lagrangian"
    """"lagrangian", the published augmented Lagrangian; "pi", a multiplier set by the gap and its sum; or "projected",
    without multipliers: gates follow what units are worth and meet the target at each step."""
    warmup_steps: int = 100
    """Steps over which the target rises from 0."""
    settle_steps: int | None = None
    """After how many steps the choice of units is final, and training goes on without gates; never by default."""
    learning_rate: float = 0.02
    """Of gates and multipliers; not of "projected"."""
    quadratic_start: float = 0.0
    """Of "lagrangian": where lambda2 starts. Above 0 the gap itself pulls from the first step on, and lambda1 does not
    wind up."""
    proportional: float = 50.0
    """Of "pi": the multiplier's share of the gap."""
    integral: float = 0.5
    """Of "pi": the multiplier's share of the gaps' sum."""
    look_steps: int = 8
    """Of "projected": steps that measure what units are worth before the first one closes."""
    memory: float = 0.95
    """Of "projected": share of its past in the running mean of what units are worth."""
    group_rate: float = 0.1
    """Of "projected": how fast whole groups gain or lose units to others by the slope of the loss; 0 for never."""
    sharpness: float = 4.0
    """Of "projected": how log_alpha grows with the logarithm of what a unit is worth, at the beginning."""
    final_sharpness: float = 40.0
    """The same at the end of the warm-up: few gates are left between open and closed."""

    def __post_init__(self) -> None:
        _check(self.kind in CONTROLLERS, "unknown controller.kind", self.kind, ", ".join(CONTROLLERS))
        for name in ("learning_rate", "sharpness"):
            _check(getattr(self, name) > 0, f"controller.{name} out of range", getattr(self, name), "above 0")
        for name in ("quadratic_start", "proportional", "integral", "group_rate", "warmup_steps", "look_steps"):
            _check(getattr(self, name) >= 0, f"controller.{name} out of range", getattr(self, name), "0 or more")
        _check(0 <= self.memory < 1, "controller.memory out of range", self.memory, "0 up to 1")
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
class CompactionConfig:
    """When units that have closed for good leave the network during step 1.

    The defaults were compared with two other rhythms on the embedded teacher (`benchmarks/training.py runs`). Step 1
    takes 0.84 of its time; 0.88 where all that is below 0.3 goes at the first chance; 0.92 where every 40th step looks
    and a tenth must go. The losses do not differ beyond the seeds' noise.
    """

    enabled: bool = True
    closed_below: float = 0.05
    """A unit counts as closed while its keep probability is below this."""
    every_steps: int = 10
    """Steps between looks at the gates."""
    patience: int = 3
    """Looks in a row at which a unit must have been closed."""
    least_share: float = 0.02
    """Cut only when this share of what is left goes: each cut costs about a step."""

    def __post_init__(self) -> None:
        _check(0 < self.closed_below < 1, "compaction.closed_below out of range", self.closed_below, "between 0 and 1")
        _check(self.every_steps >= 1, "compaction.every_steps out of range", self.every_steps, "1 or more")
        _check(self.patience >= 1, "compaction.patience out of range", self.patience, "1 or more")
        _check(0 <= self.least_share < 1, "compaction.least_share out of range", self.least_share, "0 up to 1")


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One of the two training stages."""

    steps: int
    """Optimizer steps."""
    learning_rate: float
    """Peak learning rate of the weights; falls linearly to 0 at the end."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay, on every trained parameter but gates and multipliers."""
    max_gradient_norm: float = 10.0
    """The weights' gradients are scaled down to this norm; those of gates and multipliers are not."""
    micro_batches: int = 1
    """Batches whose gradients are averaged in one optimizer step."""

    def __post_init__(self) -> None:
        _check(self.steps >= 0, "steps out of range", self.steps, "0 or more")
        _check(self.learning_rate > 0, "learning_rate out of range", self.learning_rate, "above 0")
        _check(0 <= self.warmup_steps <= self.steps, "warmup_steps out of range", self.warmup_steps, "0 to steps")
        _check(self.weight_decay >= 0, "weight_decay out of range", self.weight_decay, "0 or more")
        _check(self.micro_batches >= 1, "micro_batches out of range", self.micro_batches, "1 or more")
        _check(self.max_gradient_norm > 0, "max_gradient_norm out of range", self.max_gradient_norm, "above 0")


@dataclass(frozen=True, kw_only=True)
class OneShotConfig:
    """What takes the place of stage 1 where that has no steps."""

    importance: str = "magnitude"
    """Ranks the units: "magnitude", "activation", "taylor", "fisher" or "random". Taylor and Fisher need a loss with a
    gradient, which a student that is a copy of its teacher does not have. On the embedded teacher, half of which is
    removed, magnitude ends at a loss of 0.222 (0.252 without the repair), activation at 0.362 (0.997), from three
    batches: activation removes convolutions, on which layer 0 rests."""
    batches: int = 16
    """How many of the first training batches importance and repair see."""
    repair: bool = True
    """Fit what reads the removed units to the dense network by least squares."""

    def __post_init__(self) -> None:
        if self.importance not in IMPORTANCES:
            hint = nearest(self.importance, IMPORTANCES)
            raise ConfigError("no such importance", got=repr(self.importance), hint=hint)
        _check(self.batches >= 1, "one_shot.batches out of range", self.batches, "1 or more")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A whole compression run."""

    plugin: str
    """Which plugin prepares model, groups, objective and data."""
    recipe: str = ""
    """The named recipe that these settings came from."""
    target_sparsity: float = 0.75
    """Share of the size to remove."""
    metric: str = "params"
    """What the target counts: "params", "macs" (multiply-accumulates), "latency" (measured on the run's device), or a
    metric of one's own by its name."""
    target_speedup: float | None = None
    """With the metric "latency", in place of target_sparsity: how many times faster the pruned network is to be."""
    target_ms: float | None = None
    """The same as milliseconds for the plugin's example input."""
    seed: int = 0
    """Of every random draw but the gates' starting noise, which is always the same."""
    device: str = "auto"
    """A torch device, or "auto": a GPU where there is one."""
    precision: str = "auto"
    """ "float32", "bfloat16" (autocast), or "auto": bfloat16 where the hardware has it."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    checkpoint_minutes: float = 5.0
    """Minutes between checkpoints."""
    keep_checkpoints: int = 2
    """How many checkpoints are left: one more than may be damaged."""
    compile: bool = False
    """Compile the student with torch.compile, layer by layer."""
    gates: GateConfig = field(default_factory=GateConfig)
    controller: ControllerConfig = field(default_factory=ControllerConfig)
    compaction: CompactionConfig = field(default_factory=CompactionConfig)
    joint: StageConfig = field(default_factory=lambda: StageConfig(steps=1000, learning_rate=2e-4))
    """Step 1: distillation and pruning together. With 0 steps units are removed at once, as `one_shot` says."""
    further: StageConfig = field(default_factory=lambda: StageConfig(steps=500, learning_rate=1e-4))
    """Step 2: further distillation of the pruned network."""
    one_shot: OneShotConfig = field(default_factory=OneShotConfig)
    options: Mapping[str, Any] = field(default_factory=dict)
    """The plugin's own settings."""

    def __post_init__(self) -> None:
        in_range = 0 < self.target_sparsity < 1
        _check(in_range, "target sparsity out of range", self.target_sparsity, "between 0 and 1, exclusive")
        _check(0 <= self.seed < 2**63, "seed out of range", self.seed, "0 to 2^63 - 1")
        precisions = ("auto", "float32", "bfloat16")
        _check(self.precision in precisions, "unknown precision", self.precision, ", ".join(precisions))
        _check(self.log_every >= 1, "log_every out of range", self.log_every, "1 or more")
        minutes = self.checkpoint_minutes
        _check(minutes >= 0, "checkpoint_minutes out of range", minutes, "0 or more")
        keep = self.keep_checkpoints
        _check(keep >= 1, "keep_checkpoints out of range", keep, "1 or more")


def _check(good: bool, what: str, got: object, expected: str) -> None:
    if not good:
        raise ConfigError(what, got=got, expected=expected)
