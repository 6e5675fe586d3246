"""What an evaluation finds: scores of tasks over several seeds, and layers beside those of a teacher."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from l0prune.errors import ConfigError
from l0prune.support import versions as installed_versions


@dataclass(frozen=True, kw_only=True)
class EvaluationTask:
    """A task that a plugin can score models on."""

    metric: str
    higher_is_better: bool
    description: str


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """How models are evaluated."""

    tasks: tuple[str, ...] = ()
    """All for which there is data by default."""
    data: tuple[str, ...] = ()
    """Labelled sets; what the plugin ships by default."""
    against: str | None = None
    """The model whose layers those of the others are compared with."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """A probe is trained from each."""
    device: str = "auto"
    max_minutes: float = 30.0
    """Most data in each split of each task, where data last."""
    shuffle_labels: bool = False
    """A check of the probes: what is learnt from shuffled labels is chance."""

    def __post_init__(self) -> None:
        if not self.seeds:
            raise ConfigError("no seeds", expected="at least one")
        if not 0 < self.max_minutes < math.inf:
            expected = "a finite number above 0"
            raise ConfigError("max_minutes out of range", got=self.max_minutes, expected=expected)


@dataclass(frozen=True, kw_only=True)
class Score:
    """How well one model does one task."""

    model: str
    task: str
    values: tuple[float, ...]
    """By seed."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else the plugin tells of its probes."""

    @property
    def mean(self) -> float:
        """Over seeds."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """Standard deviation over seeds (of a sample); a single one has none."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True, kw_only=True)
class LayerComparison:
    """A layer of a model beside one of the teacher's, on the same inputs."""

    model: str
    layer: int
    teacher_layer: int
    measures: Mapping[str, float | None]
    """By name; None where the two layers cannot be compared so."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation found."""

    models: Mapping[str, Mapping[str, Any]]
    """What each model is."""
    tasks: Mapping[str, Mapping[str, Any]]
    """metric, higher_is_better, chance, and the data, by name."""
    scores: Sequence[Score]
    against: str | None
    seeds: Sequence[int]
    layers: Sequence[LayerComparison] = ()
    shuffled_labels: bool = False
    versions: Mapping[str, str] = field(default_factory=installed_versions)

    def to_json(self) -> dict[str, Any]:
        """A JSON object; each score with its mean and its deviation, null for a single seed."""
        scores = [
            asdict(score) | {"values": [*score.values], "mean": score.mean, "deviation": score.deviation}
            for score in self.scores
        ]
        layers = [asdict(layer) for layer in self.layers]
        return asdict(self) | {"scores": scores, "layers": layers, "seeds": [*self.seeds]}
