"""A baseline from beginning to end: made small at once, trained as long as both of the method's stages, kept."""

import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from l0prune_speech.distillation import Distillation, set_dropout
from l0prune_speech.formats import from_encoder, to_dphubert
from l0prune_speech.options import SpeechOptions

from l0bench.students import low_rank, narrow, one_shot
from l0bench.students.beginnings import Begin, Beginning, objective_of
from l0prune import Plugin, RunConfig, StageConfig, Task, TrainingError, build, parameter_size
from l0prune.measuring import macs, parameters
from l0prune.size import budget_for
from l0prune.storage import newest_checkpoint, save_checkpoint
from l0prune.support import write_atomic
from l0prune.training import Stage, evaluate

BEGINNINGS: Mapping[str, Begin] = {
    "distilhubert": narrow.first_layers,
    "thin": narrow.thin,
    "magnitude": one_shot.by_magnitude,
    "taylor": one_shot.by_taylor,
    "random": one_shot.by_chance,
    "low-rank": low_rank.low_rank,
}


def make_baseline(start: str, plugin: Plugin, config: RunConfig, place: Path) -> dict[str, Any]:
    """Make the smaller student, train it for all the steps, keep it as `student.pth`.

    Args:
        start: One of `BEGINNINGS`.
        plugin: Prepares teacher and data.
        config: The method's settings.
        place: The student's folder; holds checkpoints meanwhile.

    Returns:
        Parameters, losses and so on.

    Raises:
        L0PruneError: It cannot be made so small, or not be trained.
    """
    torch.manual_seed(config.seed)
    options = build(SpeechOptions, config.options)
    task = plugin.prepare(options, config)
    before = parameters(task.objective.student)
    budget = budget_for(parameter_size(task.objective.student, task.groups), config.target_sparsity)
    beginning = BEGINNINGS[start](task, config, budget)
    objective = _objective(task, beginning, options)
    count = parameters(beginning.student)
    held_out = list(task.evaluation)
    at_the_cut = evaluate(objective, held_out)[0]
    stage = Stage("further", objective, schedule(config), precision=config.precision, seed=config.seed)
    _train(stage, task, config, place / "checkpoints")
    loss, parts = evaluate(objective, held_out)
    if not isfinite(loss):
        raise TrainingError("final loss is not finite", where=place, got=loss, hint="lower the learning rate")
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
    student = beginning.student.requires_grad_(True).to(device)
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
    """As many steps as both of the method's, with the joint stage's rate and its share of warm-up."""
    joint, further = config.joint, config.further
    steps = joint.steps + further.steps
    return replace(joint, steps=steps, warmup_steps=round(joint.warmup_steps * steps / joint.steps))
