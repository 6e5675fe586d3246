"""What a plugin is, and what more it may do."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from l0prune.config import RunConfig
from l0prune.plugin.task import Task

if TYPE_CHECKING:
    from torch import nn

    from l0prune.measuring import Contender, Load
    from l0prune.plugin.scores import Evaluation, EvaluationSettings, EvaluationTask


@runtime_checkable
class Plugin(Protocol):
    """What a plugin class provides."""

    name: str
    """As in `--plugin NAME`."""
    description: str
    """One line."""
    options: type
    """A frozen dataclass of the plugin's own settings, the table [NAME] of the TOML file."""
    recipes: Mapping[str, Mapping[str, Any]]
    """Named settings; the first is the default."""

    def prepare(self, options: Any, run: RunConfig) -> Task:
        """Everything to compress one network."""
        ...

    def build(self, architecture: Mapping[str, Any]) -> "nn.Module":
        """The dense network of a task's `architecture`, with any weights."""
        ...


@dataclass(frozen=True, kw_only=True)
class ExportFormat:
    """A format that a plugin writes."""

    holds: str
    """What it is, and what it can and cannot hold."""
    suffix: str = ""
    """Of the file; a folder has none."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """What an export wrote."""

    source: str
    format: str
    path: str
    parameters: int
    """Of the network."""
    max_relative_difference: float
    """Between the outputs of the network and those of what was written, opened again."""
    signal_to_noise_db: float | None = None
    """Of the outputs, where numbers were rounded to fewer bits."""
    file_bytes: int | None = None
    """On disk."""
    float32_bytes: int | None = None
    """Of the network's parameters, in float32."""
    dense_bytes: int | None = None
    """Of the parameters in float32 before the network was pruned; None where no report says so."""
    notes: tuple[str, ...] = ()
    """What was left out or supplied."""

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)


@runtime_checkable
class Exporter(Protocol):
    """What a plugin provides beside `Plugin` to export networks."""

    formats: Mapping[str, ExportFormat]
    """By name."""

    def export(self, source: str, to: str, out: Path) -> Export:
        """Write `source` as format `to` at `out`, compared with the network before it stands there."""
        ...


@runtime_checkable
class CalibratedExporter(Protocol):
    """What an exporter provides beside `Exporter` whose formats in int8 are calibrated on data."""

    def export_calibrated(self, source: str, to: str, out: Path, calibration: Sequence[str]) -> Export:
        """As `export`, with scales that are found on these files or folders; with none, on the plugin's choice."""
        ...


@runtime_checkable
class FormatsBySource(Protocol):
    """What an exporter provides beside `Exporter` where not every format holds every network."""

    def formats_of(self, source: str) -> Mapping[str, ExportFormat]:
        """The formats that a source can be written in, by name."""
        ...


@runtime_checkable
class Benchable(Protocol):
    """What a plugin provides beside `Plugin` to have its networks measured."""

    def contender(self, source: str, workspace: Path) -> "Contender":
        """A run's network, or what the plugin takes as a teacher; `workspace` is for what is made on the way."""
        ...

    def load(self, seconds: float, batch: int) -> "Load":
        """Inputs of a length."""
        ...


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What a model card says and no file of a run tells, in the words of the Hugging Face hub."""

    license: str = ""
    language: tuple[str, ...] = ()
    """Codes: "en"."""
    base_model: str = ""
    """The repository of the network that it was made from."""
    base_model_relation: str = "finetune"
    """Hubs have no word of their own for a pruned network."""
    datasets: tuple[str, ...] = ()
    pipeline_tag: str = ""


@runtime_checkable
class Carded(Protocol):
    """What a plugin provides beside `Plugin` for the cards of its runs on a hub."""

    def card_facts(self, options: Mapping[str, Any]) -> CardFacts:
        """What is known from a run's settings of the plugin."""
        ...


@runtime_checkable
class SelfChecking(Protocol):
    """What a plugin provides beside `Plugin` for `l0prune doctor` to look at what it needs."""

    def check(self) -> None:
        """Raise an `L0PruneError` where something is missing or broken; it takes no longer than an import."""
        ...


@runtime_checkable
class Opener(Protocol):
    """What a plugin provides beside `Plugin` to have networks and exports verified."""

    def open(self, source: str) -> "nn.Module":
        """The network of a run, of an export or of what the plugin takes as a teacher, on the CPU."""
        ...

    def checksum(self, folder: str) -> str | None:
        """The checksum that an exported folder carries, in words, once it is found right; None where it has none.

        Raises:
            L0PruneError: It is wrong.
        """
        ...


@runtime_checkable
class Evaluator(Protocol):
    """What a plugin provides beside `Plugin` to have models scored on tasks."""

    tasks: "Mapping[str, EvaluationTask]"
    """By name."""

    def evaluate(
        self, models: Sequence[str], settings: "EvaluationSettings", note: Callable[[str], None]
    ) -> "Evaluation":
        """Score run directories, what the plugin takes as a teacher, and its yardsticks; `note` tells how far it is."""
        ...
