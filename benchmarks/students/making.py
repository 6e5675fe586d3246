"""One student, from an entry and a seed: made once, kept in a folder, opened by `l0prune evaluate` and `--teacher`."""

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from l0prune_speech.batching import AudioBatches
from l0prune_speech.distill import Distillation, set_dropout
from l0prune_speech.formats.checkpoint import from_encoder
from l0prune_speech.formats.dphubert import to_dphubert
from l0prune_speech.modules import SpeechEncoder
from l0prune_speech.options import SpeechOptions
from torch import nn

import l0prune
from l0prune import ConfigError, Plugin, RunConfig, RunError, StageConfig, Task
from l0prune.checkpoint import newest_checkpoint, save_checkpoint
from l0prune.config import merge
from l0prune.counting import macs, parameters
from l0prune.files import read_json, write_atomic, write_json
from l0prune.objective import evaluate
from l0prune.report import versions
from l0prune.selection import budget_for
from l0prune.training import Stage
from students import low_rank, narrow, one_shot
from students.beginnings import Begin, Beginning, objective_of
from students.entries import Entry

BEGINNINGS: Mapping[str, Begin] = {
    "distilhubert": narrow.first_layers,
    "thin": narrow.thin,
    "magnitude": one_shot.by_magnitude,
    "taylor": one_shot.by_taylor,
    "random": one_shot.by_chance,
    "low-rank": low_rank.low_rank,
}
PLUGIN = "speech"
FACTS = "facts.json"
SAME_LOSS = ("mode", "matched_layers", "l1_weight", "l2_weight", "cosine_weight", "cosine_form")
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

    def __post_init__(self) -> None:
        if self.config().metric != "params":
            raise ConfigError("students are compared at the same parameters", got=self.config().metric)

    def config(self, entry: Entry | None = None, seed: int | None = None) -> RunConfig:
        """Settings of one student; of the full method by default."""
        layers = [self.settings, entry.settings if entry else {}, {} if seed is None else {"seed": seed}]
        return l0prune.resolve(l0prune.get_plugin(PLUGIN), *layers, recipe=self.recipe)

    def place(self, entry: Entry, seed: int) -> Path:
        """Where a student is kept."""
        return self.folder / entry.name / f"seed-{seed}"


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
    if (place / FACTS).is_file():
        facts = read_json(place / FACTS)
        if any(facts[key] != value for key, value in described.items()):
            hint = "choose another folder for the students, or remove this one"
            raise RunError("student was made with other settings", where=place, hint=hint)
        return {**facts, "path": str(place / facts["file"])}
    note(f"{entry.name}, seed {seed}: {entry.answers}")
    found = _baseline(entry, config, place) if entry.is_baseline else _method(comparison, entry, config, place)
    base = comparison.config().options
    comparable = not found.pop("own_objective", False) and all(config.options[key] == base[key] for key in SAME_LOSS)
    facts = {
        "name": entry.name,
        "seed": seed,
        **described,
        **found,
        "loss": found["own_loss"] if comparable else None,
        "versions": versions(),
    }
    write_json(place / FACTS, facts)
    return {**facts, "path": str(place / facts["file"])}


class Thinned:
    """A plugin with some of the clips to train on; those held out are the same.

    Args:
        plugin: The speech plugin.
        every: Of the clips every so manieth is used.
    """

    def __init__(self, plugin: Plugin, every: int) -> None:
        self.name, self.description = plugin.name, plugin.description
        self.options, self.recipes = plugin.options, plugin.recipes
        self._plugin, self._every = plugin, every

    def prepare(self, options: Any, run: RunConfig) -> Task:
        """The task of all data, and then less of it."""
        task = self._plugin.prepare(options, run)
        if self._every == 1:
            return task
        assert isinstance(task.batches, AudioBatches)
        batches = replace(task.batches, clips=task.batches.clips[self._every // 2 :: self._every])
        return replace(task, batches=batches, data_digest=batches.digest)

    def build(self, architecture: Mapping[str, Any]) -> nn.Module:
        """The dense network of an architecture."""
        return self._plugin.build(architecture)


def _method(comparison: Comparison, entry: Entry, config: RunConfig, place: Path) -> dict[str, Any]:
    """Compress, or go on with it."""
    run = place / "run"
    if not (run / "report.json").is_file():
        settings = merge(comparison.settings, entry.settings, {"seed": config.seed})
        begun = (run / "config.toml").is_file()
        l0prune.compress(
            Thinned(l0prune.get_plugin(PLUGIN), entry.data_every),
            recipe=comparison.recipe,
            settings=settings,
            out=run,
            resume=begun,
        )
        # It is complete; what it could have gone on from is three times its size.
        shutil.rmtree(run / "checkpoints", ignore_errors=True)
    report = read_json(run / "report.json")
    return {
        "file": "run",
        "parameters": report["params_after"],
        "parameters_before": report["params_before"],
        "macs": report["macs_after"],
        "macs_per": report["macs_per"],
        "own_loss": report["distill_loss_final"],
        "losses": report["losses_final"],
        "loss_at_the_cut": report["distill_loss_after_removal"],
        "steps": config.joint.steps + config.further.steps,
        "seconds": sum(report["stage_seconds"].values()),
        "skipped_steps": report["skipped_steps"],
        "device": report["device"],
    }


def _baseline(entry: Entry, config: RunConfig, place: Path) -> dict[str, Any]:
    """Make the smaller student, train it for all the steps, keep it."""
    torch.manual_seed(config.seed)
    plugin = Thinned(l0prune.get_plugin(PLUGIN), entry.data_every)
    options = l0prune.build(SpeechOptions, config.options)
    task = plugin.prepare(options, config)
    before = parameters(task.objective.student)
    budget = budget_for(l0prune.parameter_size(task.objective.student, task.groups), config.target_sparsity)
    beginning = BEGINNINGS[entry.start](task, config, budget)
    objective = _objective(task, beginning, options)
    count = parameters(beginning.student)
    held_out = list(task.evaluation)
    at_the_cut = evaluate(objective, held_out)[0]
    stage = Stage("further", objective, schedule(config), precision=config.precision, seed=config.seed)
    _train(stage, task, config, place / "checkpoints")
    loss, parts = evaluate(objective, held_out)
    assert task.observe_for_macs is not None
    observe = task.observe_for_macs
    trained = beginning.student.eval()
    counted = round(macs(lambda: observe(trained)) * task.macs_scale)
    kept = beginning.finish(trained).cpu()
    write_atomic(place / "student.pth", lambda temporary: to_dphubert(from_encoder(kept), temporary))
    shutil.rmtree(place / "checkpoints", ignore_errors=True)
    return {
        "file": "student.pth",
        "parameters": count,
        "parameters_before": before,
        "budget": budget,
        "macs": counted,
        "macs_per": task.macs_per,
        "own_loss": loss,
        "losses": parts,
        "loss_at_the_cut": at_the_cut,
        "steps": stage.step,
        "seconds": stage.seconds,
        "skipped_steps": stage.skipped_steps,
        "device": str(stage.device),
        "own_objective": beginning.mode is not None or beginning.layers is not None,
    }


def _train(stage: Stage, task: Task, config: RunConfig, checkpoints: Path) -> None:
    """Train a stage to its end, from its newest checkpoint on."""
    state, _notes = newest_checkpoint(checkpoints)
    if state:
        stage.restore(state)
    saved_at = time.monotonic()

    def save_when_due(_signal: int) -> None:
        nonlocal saved_at
        if time.monotonic() - saved_at > config.checkpoint_minutes * 60:
            save_checkpoint(checkpoints, stage.step, stage.state(), keep=config.keep_checkpoints)
            saved_at = time.monotonic()

    batches = task.batches(stage.step * stage.micro_batches)
    stage.run(batches, log_every=config.log_every, on_record=lambda record: None, after_step=save_when_due)


def _objective(task: Task, beginning: Beginning, options: SpeechOptions) -> Distillation:
    """The task's distillation with another student in it, which trains as the method's does."""
    old = objective_of(task)
    device = next(old.parameters()).device
    student: SpeechEncoder = beginning.student.requires_grad_(True).to(device)
    set_dropout(student, dropout=options.dropout, layer_drop=options.layer_drop)
    student.encoder.transformer.activation_checkpointing = options.activation_checkpointing  # type: ignore[union-attr]
    return Distillation(
        student,
        old.targets.teacher,
        layers=beginning.layers or old.layers,
        mode=beginning.mode or old.mode,
        weights=old.weights,
        cache=old.targets.cache if beginning.layers is None else None,
    ).to(device)


def schedule(config: RunConfig) -> StageConfig:
    """As many steps as both of the method's, with step 1's rate and its share of warm-up."""
    joint, further = config.joint, config.further
    steps = joint.steps + further.steps
    return replace(joint, steps=steps, warmup_steps=round(joint.warmup_steps * steps / joint.steps))
