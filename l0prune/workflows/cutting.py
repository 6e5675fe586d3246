"""A network of any size, cut out of an elastic run: chosen by the run's order, proved, and saved as a run of its own.

Legend: N units of all groups of the dense network, G groups.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from l0prune.calibration import has_statistics, renew_statistics
from l0prune.config import RunConfig
from l0prune.errors import ConfigError, ProofError
from l0prune.gates import GatedModel
from l0prune.measuring import parameters
from l0prune.plugin import OwnTask, Task, UnitKind, get_plugin, resolve
from l0prune.proof import RUN_TOLERANCE, compare, objection
from l0prune.removal import RemovalPlan
from l0prune.report.figures import draw_kept_units
from l0prune.size import (
    Targets,
    parameter_size,
    read_targets,
)
from l0prune.storage import RunDirectory, save
from l0prune.support import (
    assembled,
    build,
    check_inside,
    evaluating,
    known_arguments,
    merge,
    random_state_kept,
    versions,
    write_atomic,
    write_json,
    write_text,
    write_toml,
)
from l0prune.training import evaluate
from l0prune.workflows.calibrating import first_batches, loss_with
from l0prune.workflows.choosing import Choice, ElasticRun, choose_units
from l0prune.workflows.counting import macs_on
from l0prune.workflows.observer import Observer, watched
from l0prune.workflows.opening import example_missing, open_run
from l0prune.workflows.results import CompressionReport, CutFacts, RunResults
from l0prune.workflows.trainer import Trainer


@known_arguments
def cut(
    run: str | Path,
    target: Targets | Mapping[str, float | str],
    *,
    out: str | Path,
    polish: int | None = None,
    task: Task | None = None,
    build: Callable[[], nn.Module] | None = None,
    observer: Observer | None = None,
    progress: bool = False,
) -> CompressionReport:
    """Cut a network out of an elastic run, which takes seconds: nothing is trained.

        l0prune.cut("runs/elastic", {"params": 0.4}, out="runs/small")

    The run's order of the units chooses those that stay; the size meets every target from below. The cut is proved: the
    network gives what the run's network gives whose other units are closed. Running statistics of batch norms, if there
    are any, are computed anew on the run's data.

    Args:
        run: The folder of an elastic run.
        target: What is to be left of one metric or several at most, as `compress` takes it: {"params": "40%"}.
        out: The folder to make, a run directory like any other.
        polish: Steps of further distillation after the cut; the run's data are needed. 0 measures the loss alone. By
            default nothing is read but the run, and the loss is not measured.
        task: The task that a run of your own task was made of, where data are needed.
        build: Makes the dense network; a plugin's run needs none.
        observer: Watches; by default the logger `l0prune` hears of it.
        progress: Show on standard error what goes on.

    Returns:
        What was achieved; the same is in report.json.

    Raises:
        RunError: The run is not elastic, not finished or damaged, or `out` is taken.
        ConfigError: A size that was not trained, an unknown metric, or data are needed and nothing gives them.
        TargetError: Nothing meets the target.
        ProofError: The cut is not exact.
    """
    began, source, folder = time.perf_counter(), Path(run), RunDirectory(Path(out))
    asked = read_targets(target)
    if polish is not None and (type(polish) is not int or polish < 0):
        raise ConfigError("polish out of range", got=repr(polish), expected="a number of steps from 0 on")
    whole = ElasticRun.read(source)
    with ExitStack() as stack:
        watcher = stack.enter_context(watched(observer, progress, speaks=True))
        stack.enter_context(random_state_kept())
        stack.enter_context(torch.inference_mode(False))
        made = RunDirectory(stack.enter_context(assembled(folder.path)))
        made.path.mkdir()
        made.metrics.touch()
        choice = choose_units(whole, asked, build)
        network, inputs = open_run(source, build)
        if not inputs:
            raise example_missing(source)
        pruned, plan, difference = _cut(network, whole, choice, inputs)
        counts = f"{parameters(pruned):,} of {whole.report['params_before']:,} parameters stay"
        watcher.note(f"cut: {counts}; outputs changed by {difference:.1e}")
        results, loss, parts = RunResults(), None, {}
        if polish is not None or has_statistics(pruned):
            task, config = _task(whole, source, task, polish or 0)
            pruned, loss, parts = _fitted(pruned, task, config, made, watcher, results, polish)
        facts: dict[str, Any] = {
            "distill_loss_final": loss,
            "losses_final": parts,
            "max_relative_difference": difference,
            "run_directory": str(folder.path),
        }
        report = _report(whole, choice, pruned, plan, results, facts)
        wishes, seconds = {one.metric.name: one.text for one in asked}, round(time.perf_counter() - began, 3)
        report = replace(report, cut=CutFacts(of=str(run), target=wishes, polish=polish, seconds=seconds))
        _write(made, whole, source, pruned, plan, inputs, report)
    watcher.finished(report)
    return report


def _cut(
    network: nn.Module, whole: ElasticRun, choice: Choice, inputs: tuple[Tensor, ...]
) -> tuple[nn.Module, RemovalPlan, float]:
    """Cut the largest network, and prove the cut.

    Returns:
        The network, its plan in the dense network's indices, and the largest relative difference of outputs.
    """
    groups = whole.plan.remaining_groups()
    stays = {group.name: np.isin(whole.plan.kept[group.name], choice.kept[group.name]) for group in groups}
    size = parameter_size(network, groups)
    left = size.exact(np.array([int(stays[group.name].sum()) for group in groups])) / size.total
    if left >= 1:
        # The largest network meets the target.
        return network, whole.plan, 0.0
    gated = GatedModel(network, groups, target_sparsity=1 - left).eval()
    mask = np.concatenate([stays[group.name] for group in groups])
    observe = lambda model: model(*(tensor.clone() for tensor in inputs))  # noqa: E731
    with gated.gates.fixed(torch.from_numpy(mask)):
        pruned, second = gated.pruned()
        difference = compare(gated, observe, pruned=pruned)
        if reason := objection(gated, observe, difference, RUN_TOLERANCE):
            raise ProofError("the cut changed the outputs", got=reason)
    return pruned, whole.plan.then(second), difference


def _task(whole: ElasticRun, source: Path, task: Task | None, steps: int) -> tuple[Task, RunConfig]:
    """The data that the run was trained on, and its settings with another number of further steps."""
    name = whole.description.get("plugin")
    if task is None and not name:
        hint = "in Python: l0prune.cut(..., task=task)"
        raise ConfigError(
            "a cut of this run needs its data", where=source, expected="the task it was made of", hint=hint
        )
    plugin = OwnTask(task) if task is not None else get_plugin(str(name))
    config = resolve(plugin, {key: value for key, value in whole.settings.items() if key != "plugin"})
    further = config.further
    warmup = further.warmup_steps * steps // further.steps if further.steps else 0
    config = replace(config, further=replace(further, steps=steps, warmup_steps=warmup))
    torch.manual_seed(config.seed)
    return task or plugin.prepare(build(plugin.options, config.options), config), config


def _fitted(
    pruned: nn.Module,
    task: Task,
    config: RunConfig,
    folder: RunDirectory,
    watcher: Observer,
    results: RunResults,
    polish: int | None,
) -> tuple[nn.Module, float | None, dict[str, float]]:
    """A cut network with its batch norms' statistics, trained on if that is asked for; and its held-out loss."""
    objective, held_out = task.objective, list(task.evaluation)
    weight = next(objective.student.parameters())
    student = pruned.to(weight.device, weight.dtype).requires_grad_(True)
    objective.student = student
    trainer = Trainer(task, config, folder, watcher, results)
    if has_statistics(student):
        batches = first_batches(task, trainer.split, config.one_shot.batches)
        with evaluating(objective):
            number = renew_statistics(student, batches, loss_with(task))
        watcher.note(f"batch norms with new statistics: {number}, from {len(batches)} batches")
    if polish is None:
        return student, None, {}
    if polish:
        results.distill_loss_after_removal = evaluate(objective, held_out)[0] if held_out else None
        folder.checkpoints.mkdir()
        trainer.train(trainer.stage("further"))
    loss, parts = evaluate(objective, held_out) if held_out else (None, {})
    return student.eval(), loss, parts


def _report(
    whole: ElasticRun,
    choice: Choice,
    pruned: nn.Module,
    plan: RemovalPlan,
    results: RunResults,
    more: Mapping[str, Any],
) -> CompressionReport:
    """What report.json says: of the run what goes for the cut too, and what is the cut's own."""
    target, before = choice.target, whole.report
    counts = np.array([plan.kept_counts[group.name] for group in plan.groups])
    macs = macs_on(whole.description.get("counted_on"), pruned)
    facts = {"macs_before": before["macs_before"], **({} if macs is None else {"macs_after": macs})}
    known = {one.name for one in fields(CompressionReport)}
    shared = ("plugin", "recipe", "teacher", "params_before", "macs_before", "macs_per", "kinds", "precision", "seed")
    return CompressionReport(
        **{key: before[key] for key in shared if key in known},
        params_after=parameters(pruned),
        metric=target.metric.name,
        target_sparsity=target.asked,
        sparsity=1 - target.left(counts, facts),
        macs_after=macs,
        kept_units={g.name: {"units": g.units, "kept": plan.kept_counts[g.name]} for g in plan.groups},
        distill_loss_before_removal=None,
        distill_loss_after_removal=results.distill_loss_after_removal,
        stage_seconds=results.stage_seconds,
        step_seconds=results.step_seconds,
        skipped_steps=results.skipped_steps,
        peak_memory_bytes=before["peak_memory_bytes"],
        device=str(next(pruned.parameters()).device),
        versions=versions(*before["versions"]),
        targets=choice.rows,
        round_to=whole.order.round_to if whole.order.round_to > 1 else None,
        **more,
    )


def _write(
    folder: RunDirectory,
    whole: ElasticRun,
    source: Path,
    pruned: nn.Module,
    plan: RemovalPlan,
    inputs: tuple[Tensor, ...],
    report: CompressionReport,
) -> None:
    """Write the run directory of the cut."""
    told = {key: whole.description[key] for key in ("plugin", "architecture", "counted_on") if key in whole.description}
    steps = (report.cut and report.cut.polish) or 0
    changed = {"metric": report.metric, "target_sparsity": report.target_sparsity}
    settings = merge(whole.settings, changed, {"further": {"steps": steps}})
    # What was cut has one size.
    settings.pop("elastic", None)
    provenance = {"teacher": report.teacher, "settings": settings, "versions": report.versions}
    save(pruned, plan, folder.path, example_inputs=inputs, **told, provenance=provenance)
    for name in whole.order.files:
        check_inside(source / name, source)
        check_inside(folder.path / name, folder.path)
        content = (source / name).read_bytes()
        write_atomic(folder.path / name, partial(_put, content=content))
    kinds = {name: UnitKind(**words) for name, words in report.kinds.items()}
    draw_kept_units(plan, folder.picture, kinds)
    write_text(folder.settings, write_toml(settings))
    write_json(folder.report, report.to_json())


def _put(place: Path, *, content: bytes) -> None:
    place.write_bytes(content)
