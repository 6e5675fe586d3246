"""Pruning in somebody's own training loop."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from l0prune.config import CompactionConfig, ControllerConfig, ElasticConfig, GateConfig
from l0prune.discovery import Depth
from l0prune.distributed import world
from l0prune.errors import ConfigError, L0PruneError, ProofError, TrainingError
from l0prune.example import Example, place_of
from l0prune.gates import Controller, GatedModel, Sparsity
from l0prune.groups import PruneGroup
from l0prune.importance import Importance, check_importance, importances
from l0prune.proof import compare, objection, tolerance_for
from l0prune.pruner.arguments import checked_settings, loss_of, matrices_of
from l0prune.pruner.elastic import check_elastic, elastic_of, renewed
from l0prune.pruner.inspection import ANY_MODEL_TOLERANCE, Form
from l0prune.pruner.preparing import prepared
from l0prune.pruner.report import PruningReport, report_of
from l0prune.pruner.schedule import controller_for
from l0prune.pruner.state import SelfDrawingModel
from l0prune.removal import RemovalPlan, remember
from l0prune.size import Limits, Metric, Targets, Wish, removing
from l0prune.support import copied, evaluating, known_arguments, one_line, sharded_parts, to_mapping, whole


class L0Pruner:
    """Gates on a model, the penalty that closes them, and the cut in the end.

    `model` stays the caller's own module and is trained as before: in training mode forward passes draw new gates, and
    those before one backward pass share theirs; in evaluation mode the gates are the selection that meets the target,
    so that outputs are those of `finalize()`.
    Gates, multipliers and step count live inside it: `state_dict()`, copies and DistributedDataParallel include them.

    Args:
        model: Any nn.Module; gates are attached to it in place.
        example_inputs: A tensor; a tuple or list of positional arguments; or a mapping of keyword arguments.
        target_sparsity: Share of the size to remove, in (0, 1).
        target_ms: With the metric "latency", in its place: milliseconds of the example inputs on the model's device.
        target_speedup: With the metric "latency", in its place: how many times faster the pruned model is to be.
        target: What is to be left of several metrics at most, all of which hold:
            `{"params": 0.25, "latency_ms": 40, "macs": "30%"}`. Below 1 it is a share of the dense size; a name may
            end in a unit. In place of the other targets and `metric`.
        limits: A floor and a ceiling by name pattern, shares of the units that a group keeps:
            `{"layers.0.*": (0.5, 1.0)}`.
        metric: What the size counts: "params", "macs" on the example inputs, "latency" (pruned copies are measured now,
            which takes a while, and the cut is measured again), or a metric of your own (`l0prune.size.Metric`).
        ignored: Modules, or their dotted names, whose own units and inputs stay; or one.
        groups: Prune groups of your own, instead of those that following the forward pass finds.
        num_heads: Attention heads by projection, where the forward pass does not show them.
        depth: Also prune depth: residual "blocks" (or True), or single "branches" of them, as units of one group each.
        round_to: Widths stay multiples of this many channels; a head counts with all of its own. By default "auto": 8
            where most channels stand in layers of 64 or more and 8 of them are at most 1 % of the size, so that the
            pruned model is not slower for its widths; 1 lets widths be as they come.
        uniform: Keep equally many units in all groups of a kind that have equally many, so that layers have one width
            in common, which the settings of a stock class can say.
        forward_fn: Runs the model: `forward_fn(model, example_inputs)`.
        output_transform: Picks what matters from the model's outputs.
        form: What `finalize()` cuts and returns: a "module" of the model's own class, or its "graph", a
            torch.fx.GraphModule in which sizes that the forward pass fixes follow from the weights.
        total_steps: Optimizer steps of the whole run, recovery after the choice of units included: for the first half
            of them units leave, then the choice is final. Without it the target rises for 100 steps and gates go on
            learning until `finalize()`. A saved state that has made more steps is refused with a ConfigError when it
            is loaded.
        start: An importance that gates start from, by name or a function of your own, as `l0prune.importances` takes
            it, instead of steps that measure. A unit may still return if the loss asks for it.
        batches: Calibration batches, where `start` needs any.
        loss: `loss(model, batch)`, where `start` needs one.
        gates: Gate settings.
        controller: Which controller, its schedule and rates; instead of `total_steps`.
        elastic: The smallest and the largest share of the size that stay, in place of a target: `elastic=(0.25, 1.0)`.
            Sizes take turns from step to step, by one order of the units, and `finalize(left=...)` cuts out any.
        compaction: Let units that have closed for good leave the network while it trains, so that steps get faster:
            True, or when they leave. `step` then needs your optimizers.
        time_limit: Seconds that following the forward pass may take.
        tolerance: Largest relative difference that the proof of a group allows.

    Raises:
        ConfigError: A setting is out of range, missing or unknown.
        TargetError: The target is out of range, or more than can be removed.
        DataError: The example inputs are on another device, or the outputs hold nothing to compare.
        GroupError: Nothing in the model can be pruned, `ignored` names a foreign module, or gates are there already.
        TraceError: The model cannot be followed, or its forward pass fails or takes longer than `time_limit`.
        PlanError: The model was pruned before, in units that these groups cut through.
    """

    @known_arguments
    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        *,
        target_sparsity: float | None = None,
        target_ms: float | None = None,
        target_speedup: float | None = None,
        target: Targets | None = None,
        limits: Limits | None = None,
        metric: str | Metric = "params",
        ignored: nn.Module | str | Sequence[nn.Module | str] = (),
        groups: Sequence[PruneGroup] | None = None,
        num_heads: Mapping[nn.Module, int] | None = None,
        depth: Depth | bool | None = None,
        round_to: int | Literal["auto"] | None = None,
        uniform: bool = False,
        forward_fn: Callable[[nn.Module, Any], Any] | None = None,
        output_transform: Callable[[Any], Any] | None = None,
        form: Form = "module",
        total_steps: int | None = None,
        start: Importance | None = None,
        batches: Iterable[Any] | None = None,
        loss: Callable[[nn.Module, Any], Any] | None = None,
        gates: GateConfig | None = None,
        controller: ControllerConfig | None = None,
        elastic: tuple[float, float] | ElasticConfig | None = None,
        compaction: CompactionConfig | bool | None = None,
        time_limit: float = 60.0,
        tolerance: float = ANY_MODEL_TOLERANCE,
    ) -> None:
        controller = controller_for(total_steps, controller)
        ends = elastic_of(elastic)
        if ends is not None:
            others = {"target_sparsity": target_sparsity, "target_ms": target_ms, "target_speedup": target_speedup}
            check_elastic(metric, controller, compaction, **others, target=target)
            target_sparsity = 1 - ends.smallest  # pyright: ignore[reportOperatorIssue]
        wish = Wish.of(
            target_sparsity=target_sparsity, target_ms=target_ms, target_speedup=target_speedup, target=target
        )
        gates, compaction = checked_settings(
            gates, controller, compaction, round_to=round_to, uniform=uniform, limits=limits
        )
        if start is not None:
            check_importance(start, batches=batches, loss=loss)
        if form == "graph" and (compaction.enabled or ends is not None):
            got = f'{"compaction" if compaction.enabled else "elastic"} and form="graph"'
            raise ConfigError("a graph is cut once, in the end", got=got, expected="one of them")
        self.inspection, subject, self.target, self._earlier = prepared(
            model,
            example_inputs,
            metric=metric,
            wish=wish,
            targets=target,
            limits=gates.limits,
            round_to=gates.round_to,
            ignored=ignored,
            groups=groups,
            num_heads=num_heads,
            depth=depth,
            forward_fn=forward_fn,
            output_transform=output_transform,
            form=form,
            time_limit=time_limit,
            tolerance=tolerance,
            stacklevel=5,  # Past `known_arguments` and `wrap`.
        )
        self.tolerance, self.controller, self.total_steps = tolerance, controller, total_steps
        self._elastic = ends
        known = partial(importances, model, self.inspection.groups, size_model=self.target.size)
        self._to_measure = replace(subject, model=copied(model)) if self.target.measured_at_cut else None
        scores = None if start is None else known(start, batches=batches, loss=loss, forward_fn=forward_fn)
        prior = known("magnitude") if controller.kind == "projected" else None
        self._example = Example(example_inputs, forward_fn, output_transform)
        # From here on gates stand on the caller's model: whatever can fail has been done.
        self._gated = SelfDrawingModel(
            model,
            self.inspection.groups,
            target_sparsity=self.target.sparsity,
            config=replace(gates, round_to=self.target.round_to),
            size_model=self.target.size,
            more=removing(self.target),
            form=self.inspection.graph,
        )
        self._controller = Controller(
            self._gated, controller, compaction=compaction, elastic=ends, start=scores, prior=prior
        )
        self._gated.carry(self._controller, total_steps)
        self._placed = place_of(self._weights())
        self._plan: RemovalPlan | None = None
        self._report: PruningReport | None = None
        self._pruned: nn.Module | None = None
        self._try_cut()

    @property
    def model(self) -> nn.Module:
        """The caller's module, gated."""
        return self._gated.model

    @property
    def gated(self) -> GatedModel:
        """The gates and what they stand on: groups, sizes, gate values."""
        return self._gated

    def penalty(self) -> Tensor:
        """What to add to the loss for the expected sparsity; float32 scalar, 0 where gates are moved without one."""
        return self._controller.penalty().float()

    def parameter_groups(
        self, *, adaptive: bool = True, only: Literal["matrices", "others"] | None = None, **options: Any
    ) -> list[dict[str, Any]]:
        """Parameter groups for any torch optimizer: the model's own, and the gates and multipliers it is to train.

        The default controller moves the gates itself: there is one group, with the model's own parameters.

        Args:
            adaptive: Whether the optimizer scales its steps, as Adam and RMSprop do. For plain SGD say False: gates and
                multipliers then get the larger rates that their small gradients need.
            only: For two optimizers: "matrices", the weights with two dimensions that are no embeddings, as Muon takes
                them; or "others", all that is left, gates and multipliers among it. By default all.
            options: Of the optimizer, for the model's own parameters: `lr=1e-3, weight_decay=0.01`, say.

        Raises:
            ConfigError: `only` is neither.
        """
        if only not in (None, "matrices", "others"):
            raise ConfigError("no such part of the parameters", where=only, expected='"matrices" or "others"')
        chosen: Iterable[nn.Parameter] = self.model.parameters()
        if only is not None:
            matrices = {id(parameter) for parameter in matrices_of(self.model)}
            chosen = [parameter for parameter in chosen if (id(parameter) in matrices) == (only == "matrices")]
        groups = self._controller.parameter_groups(chosen, adaptive=adaptive, **options)
        return groups[:1] if only == "matrices" else groups

    def step(self, *optimizers: Optimizer) -> bool:
        """Count an optimizer step; call it after the optimizer's, before the gradients of the next one.

        Args:
            optimizers: All that train the model; with `compaction` alone they are needed.

        Returns:
            Whether units have left the network. Its parameters are new ones then: those in the optimizers have been
            exchanged, but an average of weights, DistributedDataParallel or a list of your own must be made anew.

        Raises:
            TrainingError: The optimizer has made gates or multipliers non-finite; they are put back as they were. Or
                gates have had no finite gradient for ten steps. Or units cannot leave the optimizers that are given, or
                a sharded model.
        """
        if self._controller.compactor is not None and sharded_parts(self.model):
            hint = "wrap it without `compaction`, or train it with DistributedDataParallel"
            raise TrainingError("units cannot leave a sharded model while it trains", hint=hint)
        self._controller.step()
        if self.total_steps is not None and self._controller.made == self.total_steps + 1:
            warnings.warn(
                f"more steps than total_steps ({self.total_steps}): the schedule of the gates is over, the choice of "
                "units stays as it is; tell `wrap` how long the run is",
                stacklevel=2,
            )
        left = self._controller.compact(optimizers) is not None
        if left and world().size > 1:
            warnings.warn(
                "units have left the network: put the model in DistributedDataParallel anew, which else averages "
                "gradients of parameters that are gone",
                stacklevel=2,
            )
        return left

    @property
    def sparsity(self) -> Sparsity:
        """Expected sparsity, and the target at this step; waits for the device."""
        return self._controller.sparsity

    @property
    def settled(self) -> bool:
        """Whether the choice of units is final: from here on `finalize()` loses nothing that training still changes."""
        return self._gated.gates.settled

    @property
    def plan(self) -> RemovalPlan:
        """What `finalize()` removes, or removed, in indices of the dense model: the one before any earlier pruning."""
        if self._plan is not None:
            return self._plan
        return self._composed(self._gated.plan())

    @property
    def report(self) -> PruningReport:
        """What `finalize()` achieved.

        Raises:
            TrainingError: It has not been called.
        """
        if self._report is None:
            raise TrainingError("there is no report yet", hint="call finalize() first")
        return self._report

    @property
    def sizes(self) -> Sequence[float | None]:
        """Of an elastic run, shares of the size to train in this step, each under `at`; `ElasticConfig.sizes` many.

        A plain loop needs them not: without `at` the model takes one size a step. It is None, for the gates as they
        are, until the order of the units is final.
        """
        return self._controller.sizes

    @contextmanager
    def at(self, left: float | None) -> Iterator[nn.Module]:
        """The model of an elastic run at one of its sizes meanwhile, in training and evaluation mode.

            for left in pruner.sizes:
                with pruner.at(left):
                    (loss(model(inputs), labels) / len(pruner.sizes)).backward()

        Args:
            left: Share of the size that stays, between the ends; None leaves the gates as they are.

        Raises:
            ConfigError: There is one size alone, or this one is not trained.
        """
        with self._controller.at(left):
            yield self.model

    def finalize(
        self,
        evaluate: Callable[[nn.Module], float] | None = None,
        *,
        left: float | None = None,
        batches: Iterable[Any] | None = None,
        loss: Callable[[nn.Module, Any], Any] | None = None,
    ) -> nn.Module:
        """A plain, smaller copy of the model, in evaluation mode; `model` keeps its gates.

        Warns where the expected size is more than 2 % above the budget yet.

        Args:
            left: Of an elastic run the share of the size that stays; the smallest by default. Call it once a size.
            batches: Calibration batches, for running statistics of batch norms: those of the model are of no one size.
            loss: `loss(model, batch)` runs the model on one of them, where it does not take them as its inputs.
            evaluate: Your loss on held-out data, `evaluate(model)`: it is called for the model with gates as in
                training just before the cut, and for the pruned one just after it; both figures are in the report.

        Raises:
            TrainingError: No step has been made.
            ConfigError: A size that is not trained, batch norms of an elastic run without batches, or no number from
                `evaluate`.
            ProofError: The copy is not exact: it does not run on the example inputs, or its outputs or size differ from
                what the gates promise.
        """
        if self._controller.made == 0:
            hint = "train with penalty() added to the loss, and call step() after the optimizer's"
            raise TrainingError("finalize() before any step: the gates have learned nothing", hint=hint)
        if self._elastic is None and left is None:
            if behind := self._gated.behind():
                warnings.warn(behind, stacklevel=2)
            return self._finalized(evaluate)
        left = self._controller.elastic.ends[0] if left is None else left
        with self._controller.at(left):
            return self._finalized(evaluate, left, lambda pruned: renewed(pruned, batches, loss))

    def _finalized(
        self,
        evaluate: Callable[[nn.Module], float] | None,
        left: float | None = None,
        mended: Callable[[nn.Module], nn.Module] = lambda pruned: pruned,
    ) -> nn.Module:
        """Cut, proved, and reported; `mended` is what is done to the cut network."""
        before = None
        if evaluate is not None:
            with torch.no_grad(), evaluating(self.model), self._gated.gates.as_trained():
                before = loss_of(evaluate(self.model))
        # A model that is made under `torch.inference_mode` could not be trained on.
        facts = dict(self.target.facts)
        if self._to_measure:
            with evaluating(self._gated), whole(self.model):
                facts |= self._gated.meet(self.target, self._to_measure)
        pruned, plan, difference = self._cut()
        self._plan, self._pruned = self._composed(plan), mended(pruned)
        remember(pruned, self._plan)
        after = None
        if evaluate is not None:
            with torch.no_grad():
                after = loss_of(evaluate(pruned.eval()))
        self._report = report_of(
            self.inspection,
            self.target,
            self._gated,
            plan,
            pruned,
            facts,
            left=left,
            now=None if left is not None else self.sparsity,
            max_relative_difference=difference,
            steps=self._controller.made,
            loss_before_cut=before,
            loss_after_cut=after,
        )
        return pruned

    def save_run(
        self,
        folder: str | Path,
        module: nn.Module | None = None,
        *,
        name: str | None = None,
        plugin: str | None = None,
        architecture: Mapping[str, Any] | None = None,
        metrics: Iterable[Mapping[str, Any]] = (),
        final_loss: float | None = None,
        seed: int = 0,
    ) -> Path:
        """Save what `finalize()` returned as a run folder, as `compress` makes them; the commands of l0prune read it.

        Args:
            folder: The folder to make.
            module: The pruned network, if it is another object by now; that of the last `finalize()` by default.
            name: What the dense network is called; its class by default.
            plugin: A plugin whose `build(architecture)` makes the dense network, if there is one. Commands then open
                the run by it; without one they need `--build MODULE:FUNCTION`.
            architecture: JSON for that.
            metrics: A mapping for each logging step: `step`, `loss`, and where known `parts` (of the loss, by name),
                `sparsity`, `target`, `parameters`, `step_seconds`. The report draws them.
            final_loss: On held-out data, of `module`.
            seed: Of the training.

        Returns:
            The folder.

        Raises:
            TrainingError: `finalize()` has not been called.
            ConfigError: A row of `metrics` has no step or loss, or plugin and architecture do not go together.
            PlanError: `module` is not what the plan leaves.
            RunError: The folder is taken or cannot be written, or a weight is not finite; nothing is left of it then.
        """
        from l0prune.pruner.saving import save_run

        found, pruned = self.report, self._pruned if module is None else module
        assert pruned is not None
        told = {"round_to": self.target.round_to, "steps": found.steps, "controller": to_mapping(self.controller)}
        return save_run(
            Path(folder),
            pruned,
            self.plan,
            found,
            observe=self.observe,
            settings=told,
            name=name or type(self.model).__name__,
            plugin=plugin,
            architecture=architecture,
            metrics=metrics,
            final_loss=final_loss,
            seed=seed,
        )

    def rehearsed(self) -> tuple[nn.Module, RemovalPlan]:
        """What `finalize()` would return now, and its plan for the model as it was wrapped; nothing is changed.

        Raises:
            ProofError: As `finalize()` does.
        """
        pruned, plan, _ = self._cut()
        return pruned, plan if self.inspection.graph is None else self.inspection.graph.plan(plan)

    def dense(self) -> nn.Module:
        """A copy of the model without gates, which are not folded in: what the plan of `rehearsed()` applies to."""
        with whole(self.model):
            return copied(self._gated).detach()

    def observe(self, model: nn.Module) -> Any:
        """A model's outputs on the example inputs, which follow the wrapped model to another device or dtype."""
        return self._example.moved(self._placed, place_of(self._weights())).checked(model)(model)

    def _try_cut(self) -> None:
        """Cut a copy before the model is trained; where that fails, take the gates off again."""
        try:
            with torch.inference_mode(False):
                self._gated.pruned()
        except BaseException as error:
            self._gated.detach()
            if isinstance(error, L0PruneError) or not isinstance(error, Exception):
                raise
            got = f"{type(error).__name__}: {one_line(error)}"
            raise ProofError("a gated copy of the model cannot be cut", got=got) from error

    def _cut(self) -> tuple[nn.Module, RemovalPlan, float]:
        """A pruned copy, its plan, and how far its outputs are from those of the gated model."""
        with torch.inference_mode(False), whole(self.model):
            pruned, plan = self._gated.pruned()
            difference = compare(self._gated, self.observe, pruned=pruned)
            reason = objection(self._gated, self.observe, difference, tolerance_for(pruned, self.tolerance))
        if reason:
            raise ProofError("the pruned model is not exact", got=reason)
        return pruned, plan, difference

    def _weights(self) -> Iterator[Tensor]:
        """The model's own parameters."""
        special = {id(tensor) for tensor in self._controller.controlled()}
        return (parameter for parameter in self.model.parameters() if id(parameter) not in special)

    def _composed(self, plan: RemovalPlan) -> RemovalPlan:
        whole = plan if self._earlier is None else self._earlier.then(plan)
        return whole if self.inspection.graph is None else self.inspection.graph.plan(whole)
