"""One student, from an entry and a seed: made once, kept in a folder, opened by `l0prune evaluate` and `--teacher`."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import l0prune
from l0bench.provenance import where
from l0bench.students.baselines import make_baseline
from l0bench.students.entries import Entry
from l0bench.students.thinning import Thinned
from l0prune import ConfigError, RunConfig, RunError
from l0prune.support import merge, read_json, write_json

PLUGIN = "speech"
FACTS = "facts.json"
BEGUN = "begun.json"
"""What a student was begun with: one that was interrupted goes on with the same, or not at all."""
SAME_LOSS = (
    "mode",
    "matched_layers",
    "every_layer",
    "layer_weighting",
    "l1_weight",
    "l2_weight",
    "cosine_weight",
    "cosine_form",
    "terms",
)
"""Settings in which two runs must agree for their losses to be compared."""

Note = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What all students of a comparison have in common."""

    folder: Path
    """Where they are kept, a folder for each entry and seed."""
    recipe: str = "quick"
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Over the recipe's."""
    cache: Path | None = None
    """Where the teacher's hidden states are kept. Students of a seed have the same batches, so that all share them."""
    cache_gigabytes: float = 10.0

    def __post_init__(self) -> None:
        if self.config().metric != "params":
            raise ConfigError("students are compared at the same parameters", got=self.config().metric)

    def config(self, entry: Entry | None = None, seed: int | None = None) -> RunConfig:
        """Settings of one student; of the full method by default."""
        return self.resolve(self.given(entry, seed))

    def given(self, entry: Entry | None, seed: int | None) -> dict[str, Any]:
        """What is set over the recipe."""
        return merge(self.settings, entry.settings if entry else {}, {} if seed is None else {"seed": seed})

    def resolve(self, settings: Mapping[str, Any]) -> RunConfig:
        """Settings over the recipe -> all settings."""
        return l0prune.resolve(l0prune.get_plugin(PLUGIN), settings, recipe=self.recipe)

    @property
    def cached(self) -> Mapping[str, Any]:
        """Settings with which hidden states are computed once; the student is the same without them, bit for bit."""
        if self.cache is None:
            return {}
        # By default no batch of a run comes again: only other runs read what one has written.
        epochs = self.config().options["crop_epochs"] or 1_000_000
        options = {"cache": str(self.cache), "cache_gigabytes": self.cache_gigabytes, "crop_epochs": epochs}
        return {"speech": options}

    def place(self, entry: Entry, seed: int) -> Path:
        """Where a student is kept."""
        return self.folder / entry.name / f"seed-{seed}"


def is_made(comparison: Comparison, entry: Entry, seed: int) -> bool:
    """Whether a student is there."""
    return (comparison.place(entry, seed) / FACTS).is_file()


def make(comparison: Comparison, entry: Entry, seed: int, note: Note = print) -> dict[str, Any]:
    """The facts of a student, which is made if it is not there yet; one that was interrupted goes on.

    Args:
        comparison: Settings and folder.
        entry: Which student.
        seed: Of every random draw.
        note: Told what is done.

    Returns:
        Parameters, losses and so on; `path` is what `l0prune.evaluate` takes.

    Raises:
        RunError: The folder holds a student of other settings.
        L0PruneError: It cannot be made.
    """
    config, place = comparison.config(entry, seed), comparison.place(entry, seed)
    described = {"settings": l0prune.describe(config), "start": entry.start, "data_every": entry.data_every}
    for file in (place / FACTS, place / BEGUN):
        if file.is_file() and any(read_json(file)[key] != value for key, value in described.items()):
            hint = "choose another folder for the students, or remove this one"
            raise RunError("student was made with other settings", where=place, hint=hint)
    if is_made(comparison, entry, seed):
        facts = read_json(place / FACTS)
        return {**facts, "path": str(place / facts["file"])}
    write_json(place / BEGUN, described)
    note(f"{entry.name}, seed {seed}: {entry.answers}")
    plugin = Thinned(l0prune.get_plugin(PLUGIN), entry.data_every)
    settings = merge(comparison.given(entry, seed), comparison.cached)
    if entry.is_baseline:
        found = make_baseline(entry.start, plugin, comparison.resolve(settings), place)
    else:
        found = _compress(plugin, comparison.recipe, settings, place)
    base = comparison.config().options
    comparable = not found.pop("own_objective", False) and all(config.options[key] == base[key] for key in SAME_LOSS)
    facts = {
        "name": entry.name,
        "seed": seed,
        **described,
        **found,
        "loss": found["own_loss"] if comparable else None,
        "made": where(l0prune.pick_device(config.device)),
    }
    write_json(place / FACTS, facts)
    return {**facts, "path": str(place / facts["file"])}


def _compress(plugin: Thinned, recipe: str, settings: Mapping[str, Any], place: Path) -> dict[str, Any]:
    """The method itself, or what is left of it to do."""
    run = place / "run"
    if not (run / "report.json").is_file():
        begun = (run / "config.toml").is_file()
        l0prune.compress(plugin, recipe=recipe, settings=settings, out=run, resume=begun)
    # A complete run does not go on; what it could have gone on from is three times its size.
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    report, described = read_json(run / "report.json"), l0prune.read_toml(run / "config.toml")
    return {
        "file": "run",
        "parameters": report["params_after"],
        "parameters_before": report["params_before"],
        "macs": report["macs_after"],
        "macs_per": report["macs_per"],
        "own_loss": report["distill_loss_final"],
        "losses": report["losses_final"],
        "loss_at_the_cut": report["distill_loss_after_removal"],
        "steps": sum(described[stage]["steps"] for stage in ("joint", "further")),
        "seconds": sum(report["stage_seconds"].values()),
        "skipped_steps": report["skipped_steps"],
        "device": report["device"],
    }
