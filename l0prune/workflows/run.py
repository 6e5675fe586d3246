"""The whole story of a run: prove, train with gates, cut, train on, save, report."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from l0prune.config import RunConfig
from l0prune.distributed import check_same, together, world
from l0prune.errors import ConfigError, ProofError, RunError
from l0prune.gates import GatedModel
from l0prune.importance import importances
from l0prune.measuring import parameters
from l0prune.plugin import OwnTask, Plugin, Task, describe, may_change, wish_of
from l0prune.proof import RUN_TOLERANCE, compare, find_training_faults, objection, prove_groups
from l0prune.removal import RemovalPlan, apply_plan, remembered
from l0prune.size import (
    Subject,
    Target,
    bounds_of,
    check_within,
    joint_target,
    metric_named,
    read_targets,
    removing,
)
from l0prune.size.latency import latency_cache
from l0prune.storage import RunDirectory, rehearse_saving, write_order
from l0prune.support import catch_signals, copied, write_json
from l0prune.training import compiler_settings_kept, evaluate
from l0prune.workflows.calibrating import first_batches
from l0prune.workflows.elastic import trained_sizes
from l0prune.workflows.ending import description, finish, macs_of
from l0prune.workflows.observer import Observer
from l0prune.workflows.one_shot import OneShot
from l0prune.workflows.results import CompressionReport, RunResults
from l0prune.workflows.trainer import Trainer


class CompressionRun:
    """One run.

    Args:
        plugin: Builds the network again when it is loaded.
        task: What is compressed, and with which data.
        config: The settings.
        folder: Where the run is kept.
        observer: Watches it.
        resume: Whether it goes on with what the folder holds.
        state: The checkpoint to go on from; None where there was none yet.
    """

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
        self.results = RunResults.of(state["results"] if state else {})
        if not config.joint.steps:
            self.results.stage_seconds.setdefault("joint", 0.0)
            self.results.step_seconds.setdefault("joint", 0.0)
        self.trainer = Trainer(task, config, folder, observer, self.results)
        self.earlier = remembered(task.objective.student)
        self.params_before = 0
        self._to_measure: Subject | None = None

    def execute(self) -> CompressionReport:
        """All of it.

        Raises:
            L0PruneError: The data, the target or the folder cannot be used, or a cut is not exact.
            Interrupted: A signal came; the state is saved.
        """
        check_same(f"{describe(self.config)} {self.task.data_digest}", "data or settings")
        with compiler_settings_kept() if self.config.compile else nullcontext():
            return self._executed()

    def _executed(self) -> CompressionReport:
        gated = [self._prepared()]
        try:
            with catch_signals() as self.trainer.stopped:
                # Handed over, so that it can be freed when it is needed no more.
                self._train(gated.pop(), self.state)
        except BaseException:
            if isinstance(self.plugin, OwnTask) and parameters(self.task.objective.student) < self.params_before:
                self.observer.note("the task's student has been cut: make the task anew before it is run or resumed")
            raise
        assert self.trainer.plan is not None
        report = finish(
            self.plugin,
            self.task,
            self.config,
            self.folder,
            target=self.target,
            plan=self.trainer.plan,
            earlier=self.earlier,
            params_before=self.params_before,
            results=self.results,
        )
        if world().is_main:
            self.observer.finished(report)
        return report

    def _prepared(self) -> GatedModel:
        """The gated student, every group proved, and a folder to write to."""
        student = self.task.objective.student
        if self.config.elastic.ends is not None and self.earlier is not None:
            raise ConfigError("an elastic run begins with a dense network", got="one that was pruned before")
        subject = self._subject()
        self.target = self._target(subject)
        self.results.learn(self.target.facts)
        if self.target.measured_at_cut:
            self._to_measure = replace(subject, model=copied(student))
        if self.config.controller.kind == "projected":
            self.trainer.prior = importances(student, self.task.groups, size_model=self.target.size)
        # Where the joint stage trains, or is over, there is nothing to rank.
        over = self.config.joint.steps > 0 or (self.state is not None and self.state["stage"] == "further")
        scores = None if over else self._one_shot().scores(self.target.size)
        if self.state is None:
            self._prove_training()
        gated = GatedModel(
            student,
            self.task.groups,
            target_sparsity=self.target.sparsity,
            config=replace(self.config.gates, round_to=self.target.round_to),
            size_model=self.target.size,
            more=removing(self.target),
        )
        if scores is not None:
            gated.gates.rank_by(scores)
        try:
            self._prove_and_begin(gated)
        except BaseException:
            gated.detach()
            raise
        return gated

    def _target(self, subject: Subject) -> Target:
        """What is to be removed, and that the limits leave room for it."""
        config, limits = self.config, self.config.gates.limits
        bounds_of(subject.groups, limits)
        if config.target:
            target = joint_target(subject, read_targets(config.target))
        else:
            target = metric_named(config.metric).target(subject, wish_of(config))
        if limits:
            check_within(target, bounds_of(subject.groups, limits, target.round_to or 1))
        return target

    def _prove_training(self) -> None:
        """Compare gated and dense in training mode, which takes the student without gates."""
        student, task = self.task.objective.student, self.task
        faults, notes = find_training_faults(student, task.groups, task.observe, RUN_TOLERANCE)
        for name, reason in faults.items():
            hint = "leave it out of the groups, or say how its layers are gated (`l0prune.layers.register`)"
            raise ProofError("gates on this group change training", where=name, got=reason, hint=hint)
        for note in notes:
            self.observer.note(note)

    def _prove_and_begin(self, gated: GatedModel) -> None:
        gated.eval()
        self.params_before = gated.parameter_model.total
        prove_groups(gated, self.task.observe)
        together(self._begin)
        if self.state is None:
            together(lambda: self._rehearse(gated))
        self.observer.prepared(self.task, gated, self.config, self.folder.path)
        warmup, steps = self.config.controller.warmup_steps, self.config.joint.steps
        if warmup >= steps > 0:
            self.observer.note(
                f"the target is never asked for in full: controller.warmup_steps {warmup} of {steps} steps"
            )
        if self.results.macs_before is None:
            with gated.gates.fixed(torch.ones_like(gated.gates.log_alpha)):
                self.results.macs_before = macs_of(self.task, gated.model)
        if self.resume and world().is_main:
            self.folder.sweep(self.config.keep_checkpoints)
            self.folder.rewind_metrics(self.state["position"] if self.state else 0)

    def _rehearse(self, gated: GatedModel) -> None:
        """Cut, save and load now what will be after the joint stage, with the units that untrained gates choose."""
        if not (self.config.joint.steps and world().is_main):
            return
        pruned, plan = gated.pruned()
        difference = compare(gated, self.task.observe, pruned=pruned)
        if reason := objection(gated, self.task.observe, difference, RUN_TOLERANCE):
            raise ProofError("the cut would change the outputs", got=reason)
        own = isinstance(self.plugin, OwnTask)
        rehearse_saving(
            pruned,
            self.earlier.then(plan) if self.earlier and not own else plan,
            self.task.observe,
            build=lambda: copied(gated).detach() if own else self.plugin.build(self.task.architecture),
            tolerance=RUN_TOLERANCE,
            folder=self.folder.path,
            **description(self.plugin, self.task, self.config),
        )

    def _train(self, gated: GatedModel, state: Mapping[str, Any] | None) -> None:
        """The joint stage, the cut, the further stage."""
        if self.config.elastic.ends is not None:
            self._train_elastic(gated, state)
            return
        trainer, objective = self.trainer, self.task.objective
        if state is None or state["stage"] == "joint":
            try:
                if self.config.joint.steps:
                    joint = trainer.stage("joint", gated)
                    if state:
                        trainer.restore(joint, state)
                    trainer.train(joint)
                student = self._cut(gated)
            finally:
                # Whatever happens, no gates are left on the caller's own network.
                objective.student = gated.detach()
            if not self.config.joint.steps:
                loss = self._one_shot().repair(objective.student, student, trainer.plan)
                self.results.distill_loss_after_repair = loss
            objective.student = student
        else:
            trainer.plan = RemovalPlan.from_json(state["plan"])
            objective.student = apply_plan(gated.detach(), trainer.plan)
        # The gated student is needed no more.
        del gated
        further = trainer.stage("further")
        if state and state["stage"] == "further":
            trainer.restore(further, state)
        else:
            trainer.save(further)
        trainer.train(further)

    def _train_elastic(self, gated: GatedModel, state: Mapping[str, Any] | None) -> None:
        """Both stages with gates, of which the second holds the order; then some sizes proved, and the largest kept."""
        trainer, objective = self.trainer, self.task.objective
        try:
            if state is None or state["stage"] == "joint":
                joint = trainer.stage("joint", gated)
                if state:
                    trainer.restore(joint, state)
                trainer.train(joint)
                further = trainer.stage("further", gated)
                assert joint.controller is not None
                assert further.controller is not None
                further.controller.restore(joint.controller.state_dict())
                trainer.save(further)
            else:
                further = trainer.stage("further", gated)
                trainer.restore(further, state)
            trainer.train(further)
            controller = further.controller
            assert controller is not None
            gated.eval()
            batches = first_batches(self.task, trainer.split, self.config.one_shot.batches)
            metric = self.target.metric.name
            found = trained_sizes(gated, controller, self.task, batches, metric, self.observer.note)
        finally:
            objective.student = gated.detach()
        if world().is_main:
            write_order(self.folder.order, found.order)
        self.results.elastic, self.results.max_relative_difference = found.facts, found.difference
        objective.student, trainer.plan = found.largest

    def _begin(self) -> None:
        """Make the folder, in the main process; check that checkpoints fit, and that a resumed run goes on alike."""
        split = self.trainer.split
        if self.state and self.state["split"] != split:
            hint = f"resume with a number of processes that splits batches in {self.state['split']}"
            raise RunError("batches would be split otherwise", got=split, hint=hint)
        if self.state and self.state.get("data_digest", self.task.data_digest) != self.task.data_digest:
            hint = "resume with the same files, or choose another --out"
            raise RunError("teacher or data differ from those the run began with", where=self.folder.path, hint=hint)
        if not world().is_main:
            return
        # Weights and two moments of each, in float32; one file more than are kept while the next is written.
        state_bytes = 3 * 4 * parameters(self.task.objective)
        self.folder.check_space(state_bytes * (self.config.keep_checkpoints + 1))
        if not self.resume:
            self.folder.begin(describe(self.config), may_change(self.plugin))
            if not self.config.joint.steps:
                # A run without a step has no records, but the same files.
                self.folder.metrics.touch()
            if self.target.kept is not None:
                write_json(self.folder.latency, dict(self.target.kept))

    def _subject(self) -> Subject:
        """What the metric looks at."""
        task = self.task
        student, groups = task.objective.student, tuple(task.groups)
        return Subject(
            model=student,
            groups=groups,
            observe=task.observe_load,
            deploy=task.deploy,
            round_to=self.config.gates.round_to,
            # A resumed run must go on with the same figures, another run may use them.
            cache=(self.folder.latency,) if self.resume else latency_cache(student, groups),
            resumed=self.resume,
            note=self.observer.note,
        )

    def _one_shot(self) -> OneShot:
        return OneShot(self.task, self.config, self.trainer.split, self.observer.note)

    def _cut(self, gated: GatedModel) -> nn.Module:
        """Remove what is closed, and check that nothing else changed."""
        objective, batches = self.task.objective, list(self.task.evaluation)
        gated.eval()
        if self.config.joint.steps:
            with torch.no_grad():
                self.results.expected_sparsity_at_cut = float(gated.expected_sparsity())
            self.results.forced_units = gated.gates.forced()
            if behind := gated.behind():
                self.observer.note(behind)
        if self._to_measure:
            self.results.learn(gated.meet(self.target, self._to_measure))
            self._to_measure = None
        if batches:
            if self.config.joint.steps:
                with gated.gates.as_trained():
                    self.results.distill_loss_gated = evaluate(objective, batches)[0]
            self.results.distill_loss_before_removal = evaluate(objective, batches)[0]
        self.results.targets, self.results.selection_gap = gated.budget_facts(self.target)
        difference = compare(gated, self.task.observe)
        if reason := objection(gated, self.task.observe, difference, RUN_TOLERANCE):
            raise ProofError("the cut changed the outputs", got=reason)
        self.results.max_relative_difference = difference
        student, self.trainer.plan = gated.pruned()
        objective.student = student
        if batches:
            self.results.distill_loss_after_removal = evaluate(objective, batches)[0]
        kept, total = parameters(student), gated.parameter_model.total
        self.observer.note(
            f"cut: {kept:,} of {total:,} parameters stay (sparsity {1 - kept / total:.4f}); "
            f"outputs changed by {difference:.1e}"
        )
        return student
