"""The whole story: prove, train with gates, cut, train on, save, report."""

import copy
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import nn

from l0prune.checkpoint import save_checkpoint
from l0prune.config import RunConfig, build, read_toml
from l0prune.counting import macs, parameters, peak_memory_bytes
from l0prune.dependency import trace
from l0prune.errors import ConfigError, Interrupted, ProofError, RunError, TrainingError
from l0prune.files import write_atomic, write_json
from l0prune.gating import GatedModel
from l0prune.latency_model import latency_cache, measure_latency
from l0prune.latency_target import meet_target, sparsity_for
from l0prune.mac_model import mac_size
from l0prune.model_file import save
from l0prune.observer import Observer
from l0prune.plan import RemovalPlan, remembered
from l0prune.plugin import Plugin, Task, get_plugin
from l0prune.proof import TOLERANCE, compare, exact, prove_groups
from l0prune.removal import apply_plan
from l0prune.report import CompressionReport, versions
from l0prune.run_directory import RunDirectory, free_run_directory
from l0prune.settings import describe, resolve
from l0prune.signals import catch_signals
from l0prune.size_model import SizeModel
from l0prune.training import Record, Stage, evaluate


def compress(
    plugin: str | Plugin | Task,
    *,
    recipe: str | None = None,
    config: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    observer: Observer | None = None,
) -> CompressionReport:
    """Compress a network by joint distillation and pruning, then further distillation.

    Args:
        plugin: An installed plugin's name, a plugin object, or a task made of your own objective and data.
        recipe: One of the plugin's named settings; its first by default.
        config: A TOML file whose settings go over the recipe's.
        settings: Nested settings that go over both, {"target_sparsity": 0.5, "joint": {"steps": 2000}} say.
        out: The run directory; by default the first free one below `runs/`.
        resume: Continue the interrupted run in `out`.
        observer: Watches the run.

    Returns:
        What was achieved; the same is in report.json. `l0prune.load(report.run_directory)` opens the network.

    Raises:
        L0PruneError: A setting, the data, the target or the run directory cannot be used.
        Interrupted: SIGINT or SIGTERM came; the state is saved.
    """
    chosen = get_plugin(plugin) if isinstance(plugin, str) else _OwnTask(plugin) if isinstance(plugin, Task) else plugin
    layers = [read_toml(Path(config))] if config else []
    run = resolve(chosen, *layers, settings or {}, recipe=recipe)
    if out is None and resume:
        raise ConfigError("--resume needs the run directory", expected="--out DIR")
    base = Path("runs") / f"{run.plugin}-{run.recipe}"
    folder = RunDirectory(Path(out) if out else free_run_directory(base))
    state = folder.resume(describe(run)) if resume else None
    if not resume:
        folder.check_free()
    torch.manual_seed(run.seed)
    task = chosen.prepare(build(chosen.options, run.options), run)
    return _Run(chosen, task, run, folder, observer or Observer(), resume=resume, state=state).execute()


@dataclass(frozen=True)
class _NoOptions:
    """A caller's own task has no settings of its own."""


class _OwnTask:
    """A caller's own task in a plugin's place."""

    def __init__(self, task: Task) -> None:
        self.name, self.description, self.options = "task", "a caller's own task", _NoOptions
        self.recipes: Mapping[str, Mapping[str, Any]] = {"own": {}}
        self.task = task

    def prepare(self, options: Any, run: RunConfig) -> Task:
        return self.task

    def build(self, architecture: Mapping[str, Any]) -> nn.Module:
        raise NotImplementedError  # Never called: the saved network names no plugin.


class _Run:
    """One run from the dense network to the report."""

    def __init__(
        self,
        plugin: Plugin,
        task: Task,
        config: RunConfig,
        folder: RunDirectory,
        observer: Observer,
        *,
        resume: bool,
        state: dict[str, Any] | None,
    ) -> None:
        self.plugin, self.task, self.config = plugin, task, config
        self.folder, self.observer, self.resume, self.state = folder, observer, resume, state
        self.results: dict[str, Any] = copy.deepcopy(state["results"]) if state else {}
        for key in ("stage_seconds", "step_seconds"):
            self.results.setdefault(key, {})
        self.plan: RemovalPlan | None = None
        self.earlier = remembered(task.objective.student)
        self.target_sparsity, self.gates = config.target_sparsity, config.gates
        self._latency_file: Path | None = None
        self._saved_at = time.monotonic()
        self._stopped: Callable[[], int | None] = lambda: None

    def execute(self) -> CompressionReport:
        objective = self.task.objective
        size = self._constrained_size()
        gated = GatedModel(
            objective.student,
            self.task.groups,
            target_sparsity=self.target_sparsity,
            config=self.gates,
            size_model=size,
        )
        gated.eval()
        params_before = gated.parameter_model.total
        prove_groups(gated, self.task.observe)
        if not self.resume:
            self.folder.begin(describe(self.config))
            if self._latency_file:
                write_atomic(self.folder.latency, lambda place: shutil.copyfile(str(self._latency_file), place))
        self.observer.prepared(self.task, gated, self.config, self.folder.path)
        if "macs_before" not in self.results:
            with gated.gates.fixed(torch.ones_like(gated.gates.log_alpha)):
                self.results["macs_before"] = self._macs(gated.model)
        if self.resume:
            self.folder.sweep()
            self.folder.rewind_metrics(self.state["position"] if self.state else 0)
        with catch_signals() as self._stopped:
            if self.state is None or self.state["stage"] == "joint":
                self._joint(gated)
                objective.student = self._cut(gated)
            else:
                self.plan = RemovalPlan.from_json(self.state["plan"])
                objective.student = apply_plan(gated.detach(), self.plan)
            # The dense student is needed no more, and is the larger one.
            del gated
            further = self._stage("further", None)
            if self.state and self.state["stage"] == "further":
                self._restore(further, self.state)
            else:
                self._checkpoint(further)
            self._train(further)
        return self._finish(params_before)

    def _constrained_size(self) -> SizeModel | None:
        """What the target counts; None for the parameters."""
        if self.config.metric == "params":
            return None
        task = self.task
        student, observe = task.objective.student, task.observe_for_macs or task.observe
        found = trace(student, observe, training=False)
        if self.config.metric == "macs":
            return mac_size(student, task.groups, found)
        # A resumed run must go on with the same figures, another run may use them.
        cache = [self.folder.latency] if self.resume else [latency_cache(student, task.groups)]
        self.observer.note("measuring the latency of pruned copies")
        given = self.config.gates.round_to
        latency = measure_latency(student, task.groups, observe, found, deploy=task.deploy, round_to=given, cache=cache)
        self.results |= {"latency_model_error": latency.error, "round_to": latency.round_to}
        self.gates = replace(self.gates, round_to=latency.round_to)
        self._latency_file = cache[0]
        self.target_sparsity = sparsity_for(latency, self.config)
        return latency.size

    def _joint(self, gated: GatedModel) -> None:
        """Step 1: distil and prune together."""
        stage = self._stage("joint", gated)
        if self.state:
            self._restore(stage, self.state)
        self._train(stage)

    def _restore(self, stage: Stage, state: dict[str, Any]) -> None:
        try:
            stage.restore(state)
        except (LookupError, RuntimeError, TypeError, ValueError) as error:
            hint = "is the teacher still the one the run began with?"
            raise RunError("checkpoint does not fit the run", where=self.folder.path, hint=hint) from error

    def _cut(self, gated: GatedModel) -> nn.Module:
        """Remove what is closed, and check that nothing else changed."""
        objective, batches = self.task.objective, list(self.task.evaluation)
        gated.eval()
        if self.config.metric == "latency":
            task = self.task
            observe, deploy = task.observe_for_macs or task.observe, task.deploy
            self.results |= meet_target(gated, observe, deploy, 1 - self.target_sparsity, self.observer.note)
        if batches:
            self.results["distill_loss_before_removal"] = evaluate(objective, batches)[0]
        difference = compare(gated, self.task.observe)
        if not exact(gated, self.task.observe, difference, TOLERANCE):
            raise ProofError("the cut changed the outputs", got=f"{difference:.1e}", expected=f"at most {TOLERANCE}")
        self.results["max_relative_difference"] = difference
        student, self.plan = gated.pruned()
        objective.student = student
        if batches:
            self.results["distill_loss_after_removal"] = evaluate(objective, batches)[0]
        kept, total = parameters(student), gated.parameter_model.total
        self.observer.note(
            f"cut: {kept:,} of {total:,} parameters stay (sparsity {1 - kept / total:.4f}); "
            f"outputs changed by {difference:.1e}"
        )
        return student

    def _finish(self, params_before: int) -> CompressionReport:
        objective, task, config, plan = self.task.objective, self.task, self.config, self.plan
        assert plan is not None
        student = objective.student.eval()
        loss, parts = evaluate(objective, list(task.evaluation)) if task.evaluation else (None, {})
        if loss is not None and not isfinite(loss):
            raise TrainingError("final loss is not finite", got=loss, hint="lower the learning rate")
        params_after, macs_after = parameters(student), self._macs(student)
        macs_before = self.results["macs_before"]
        results = {"distill_loss_before_removal": None, "distill_loss_after_removal": None, **self.results}
        device = next(student.parameters()).device
        report = CompressionReport(
            plugin=config.plugin,
            recipe=config.recipe,
            teacher=task.teacher,
            run_directory=str(self.folder.path),
            params_before=params_before,
            params_after=params_after,
            target_sparsity=self.target_sparsity,
            metric=config.metric,
            sparsity=1 - self._left(params_after / params_before, macs_after / macs_before),
            macs_after=macs_after,
            macs_per=task.macs_per,
            kept_units={g.name: {"units": g.units, "kept": plan.kept_counts[g.name]} for g in plan.groups},
            distill_loss_final=loss,
            losses_final=parts,
            peak_memory_bytes=peak_memory_bytes(device),
            device=str(device),
            precision=config.precision,
            versions=versions(),
            seed=config.seed,
            **results,
        )
        provenance = {"teacher": task.teacher, "settings": describe(config), "versions": report.versions}
        architecture = dict(task.architecture)
        name = None if isinstance(self.plugin, _OwnTask) else config.plugin
        description = {"plugin": name, "architecture": architecture, "provenance": provenance}
        # A network that came pruned is described from its own dense network on.
        whole = self.earlier.then(plan) if self.earlier else plan
        save(student, whole, self.folder.path, **description)
        if task.draw:
            draw = task.draw
            write_atomic(self.folder.picture, lambda temporary: draw(whole, temporary))
        # Last: a run with a report is complete.
        write_json(self.folder.report, report.to_json())
        self.observer.finished(report)
        return report

    def _left(self, parameters_left: float, macs_left: float) -> float:
        """Share of what the target counts."""
        if self.config.metric == "latency":
            return self.results["latency_after_ms"] / self.results["latency_before_ms"]
        return macs_left if self.config.metric == "macs" else parameters_left

    def _stage(self, name: str, gated: GatedModel | None) -> Stage:
        settings = self.config.joint if name == "joint" else self.config.further
        objective, precision = self.task.objective, self.config.precision
        return Stage(name, objective, settings, precision=precision, gated=gated, controller=self.config.controller)

    def _train(self, stage: Stage) -> None:
        before = 0 if stage.name == "joint" else self.config.joint.steps
        self.observer.stage_begins(stage.name, stage.config.steps, stage.step)

        def on_record(record: Record) -> None:
            self.folder.append_metrics({"position": before + record.step, **asdict(record)})
            self.observer.record(record)

        def after_step() -> None:
            signal_number = self._stopped()
            due = time.monotonic() - self._saved_at > self.config.checkpoint_minutes * 60
            if signal_number is not None or due:
                self._checkpoint(stage)
            if signal_number is not None:
                hint = f"go on with --resume --out {self.folder.path}"
                raise Interrupted(signal_number, where=f"{stage.name} step {stage.step}", hint=hint)

        batches = self.task.batches(self._batches_before(stage))
        stage.run(batches, log_every=self.config.log_every, on_record=on_record, after_step=after_step)
        self.results["stage_seconds"][stage.name] = stage.seconds
        self.results["step_seconds"][stage.name] = stage.seconds / max(1, stage.step)
        self.results["skipped_steps"] = self.results.get("skipped_steps", 0) + stage.skipped_steps

    def _batches_before(self, stage: Stage) -> int:
        joint = self.config.joint
        consumed = 0 if stage.name == "joint" else joint.steps * joint.micro_batches
        return consumed + stage.step * stage.config.micro_batches

    def _checkpoint(self, stage: Stage) -> None:
        position = stage.step + (0 if stage.name == "joint" else self.config.joint.steps)
        plan = self.plan.to_json() if self.plan else None
        state = {**stage.state(), "position": position, "plan": plan, "results": self.results}
        save_checkpoint(self.folder.checkpoints, position, state)
        self._saved_at = time.monotonic()

    def _macs(self, model: nn.Module) -> int:
        observe = self.task.observe_for_macs or self.task.observe
        return round(macs(lambda: observe(model)) * self.task.macs_scale)
