"""The end of a run: its report, and its files."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from l0prune.config import RunConfig
from l0prune.distributed import world
from l0prune.errors import L0PruneError, TrainingError
from l0prune.measuring import macs, parameters, peak_memory_bytes
from l0prune.plugin import Benchable, OwnTask, Plugin, Task, describe
from l0prune.removal import RemovalPlan
from l0prune.report.figures import draw_kept_units
from l0prune.size import Target
from l0prune.storage import RunDirectory, save
from l0prune.support import tensors_given, versions, write_atomic, write_json
from l0prune.training import evaluate
from l0prune.workflows.results import CompressionReport, RunResults

_PROBE_SECONDS = 0.5
"""Of the input that a plugin makes for a probe."""


def finish(
    plugin: Plugin,
    task: Task,
    config: RunConfig,
    folder: RunDirectory,
    *,
    target: Target,
    plan: RemovalPlan,
    earlier: RemovalPlan | None,
    params_before: int,
    results: RunResults,
) -> CompressionReport:
    """Describe a student that is pruned and trained, and save it in the main process.

    Args:
        plugin: Builds the network again when it is loaded.
        task: Holds the student.
        config: The settings.
        folder: Where the run is kept.
        target: What was to be removed.
        plan: What was cut.
        earlier: What had been cut before the run.
        params_before: Parameters of the student before the cut.
        results: What the run has found.

    Raises:
        TrainingError: The final loss is not finite.
        L0PruneError: A file cannot be written.
    """
    student = task.objective.student.eval()
    report = _report(student, task, config, folder, target, plan, params_before, results)
    if not world().is_main:
        return report
    provenance = {"teacher": task.teacher, "settings": describe(config), "versions": report.versions}
    said = {**description(plugin, task, config), "provenance": provenance}
    if counted := _counted_on(task, student):
        said["counted_on"] = counted
    # A network that came pruned is described from its own dense network on.
    whole = earlier.then(plan) if earlier else plan
    save(student, whole, folder.path, example_inputs=_probe(plugin, task, student), **said)
    for name, content in task.files.items():
        write_atomic(folder.path / name, partial(_write, content=content))
    draw_kept_units(whole, folder.picture, task.kinds)
    # Last: a run with a report is complete.
    write_json(folder.report, report.to_json())
    return report


def description(plugin: Plugin, task: Task, config: RunConfig) -> dict[str, Any]:
    """What tells how the dense network is built."""
    name = None if isinstance(plugin, OwnTask) else config.plugin
    return {"plugin": name, "architecture": dict(task.architecture)}


def macs_of(task: Task, model: nn.Module) -> int:
    """Multiply-accumulates of a model, as reports quote them."""
    return round(macs(lambda: task.observe_load(model)) * task.macs_scale)


def _report(
    student: nn.Module,
    task: Task,
    config: RunConfig,
    folder: RunDirectory,
    target: Target,
    plan: RemovalPlan,
    params_before: int,
    results: RunResults,
) -> CompressionReport:
    loss, parts = evaluate(task.objective, list(task.evaluation)) if task.evaluation else (None, {})
    if loss is not None and not isfinite(loss):
        raise TrainingError("final loss is not finite", got=loss, hint="lower the learning rate")
    macs_after = macs_of(task, student)
    counts = np.array([plan.kept_counts[group.name] for group in plan.groups])
    assert results.macs_before is not None
    assert results.max_relative_difference is not None
    device = next(student.parameters()).device
    return CompressionReport(
        plugin=config.plugin,
        recipe=config.recipe,
        teacher=task.teacher,
        run_directory=str(folder.path),
        params_before=params_before,
        params_after=parameters(student),
        metric=target.metric.name,
        # What is left here of an elastic run is its largest network.
        target_sparsity=target.asked if config.elastic.ends is None else 1 - config.elastic.largest,
        sparsity=1 - target.left(counts, results.facts() | {"macs_after": macs_after}),
        macs_before=results.macs_before,
        macs_after=macs_after,
        macs_per=task.macs_per,
        kinds={name: asdict(kind) for name, kind in task.kinds.items()},
        kept_units={g.name: {"units": g.units, "kept": plan.kept_counts[g.name]} for g in plan.groups},
        max_relative_difference=results.max_relative_difference,
        distill_loss_before_removal=results.distill_loss_before_removal,
        distill_loss_after_removal=results.distill_loss_after_removal,
        distill_loss_final=loss,
        losses_final=parts,
        stage_seconds=results.stage_seconds,
        step_seconds=results.step_seconds,
        skipped_steps=results.skipped_steps,
        peak_memory_bytes=peak_memory_bytes(device),
        device=str(device),
        precision=config.precision,
        versions=versions(*task.packages),
        seed=config.seed,
        distill_loss_after_repair=results.distill_loss_after_repair,
        forced_units=results.forced_units,
        distill_loss_gated=results.distill_loss_gated,
        expected_sparsity_at_cut=results.expected_sparsity_at_cut,
        compactions=results.compactions,
        latency_before_ms=results.latency_before_ms,
        latency_after_ms=results.latency_after_ms,
        speedup=results.speedup,
        round_to=results.round_to,
        latency_model_error=results.latency_model_error,
        metric_facts=results.metric_facts,
        targets=results.targets,
        selection_gap=results.selection_gap,
        elastic=results.elastic,
    )


def _probe(plugin: Plugin, task: Task, student: nn.Module) -> Sequence[Tensor]:
    """A small input, on which what is saved can be compared elsewhere."""
    given = tensors_given(student, task.observe)
    if not given and isinstance(plugin, Benchable):
        # A run is not lost for a length that a plugin does not have.
        with suppress(L0PruneError):
            given = plugin.load(_PROBE_SECONDS, 1).inputs
    return given


def _counted_on(task: Task, student: nn.Module) -> dict[str, Any] | None:
    """What multiply-accumulates are counted on, as far as it is a plain call."""
    given = tensors_given(student, task.observe_load)
    inputs = [{"shape": [*tensor.shape], "dtype": str(tensor.dtype).removeprefix("torch.")} for tensor in given]
    return {"inputs": inputs, "scale": task.macs_scale} if inputs else None


def _write(place: Path, *, content: bytes) -> None:
    place.write_bytes(content)
