"""Pruning without training: rank the units, remove the last ones, and make up for them by least squares."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn

from l0prune.calibration import Forward, as_batches
from l0prune.calibration import repair as repaired
from l0prune.config import GateConfig
from l0prune.discovery import Depth
from l0prune.errors import ConfigError, ProofError
from l0prune.gates import GatedModel
from l0prune.groups import PruneGroup
from l0prune.importance import Importance, check_importance, importances
from l0prune.proof import compare, objection, tolerance_for
from l0prune.pruner import ANY_MODEL_TOLERANCE, Form, prepared
from l0prune.removal import remember
from l0prune.size import Limits, Metric, Targets, Wish, removing
from l0prune.support import copied, counted, known_arguments
from l0prune.workflows.observer import Counted, watched


@known_arguments
def prune(
    model: nn.Module,
    example_inputs: Any,
    *,
    target_sparsity: float | None = None,
    target_ms: float | None = None,
    target_speedup: float | None = None,
    target: Targets | None = None,
    limits: Limits | None = None,
    metric: str | Metric = "params",
    importance: Importance = "magnitude",
    batches: Iterable[Any] | None = None,
    loss: Forward | None = None,
    repair: bool = False,
    ignored: nn.Module | str | Sequence[nn.Module | str] = (),
    groups: Sequence[PruneGroup] | None = None,
    num_heads: Mapping[nn.Module, int] | None = None,
    depth: Depth | bool | None = None,
    round_to: int | Literal["auto"] | None = None,
    uniform: bool = False,
    forward_fn: Callable[[nn.Module, Any], Any] | None = None,
    output_transform: Callable[[Any], Any] | None = None,
    form: Form = "module",
    seed: int = 0,
    time_limit: float = 60.0,
    tolerance: float = ANY_MODEL_TOLERANCE,
    progress: bool = False,
) -> nn.Module:
    """Prune a model in one call, without training.

        smaller = l0prune.prune(model, example_inputs, target_sparsity=0.5, batches=batches, repair=True)

    Groups, proof, selection and removal are those of `wrap`; what ranks the units is an importance. The repair fits the
    layers that have lost inputs to what they made before, which brings back most of what a cut costs.

    Args:
        model: Any nn.Module; it is left as it is.
        example_inputs: A tensor; a tuple or list of positional arguments; or a mapping of keyword arguments.
        target_sparsity: Share of the size to remove, in (0, 1).
        target_ms: With the metric "latency", in its place: milliseconds of the example inputs.
        target_speedup: With the metric "latency", in its place: how many times faster.
        target: What is to be left of several metrics at most, in place of the other targets and `metric`:
            `{"params": 0.25, "latency_ms": 40, "macs": "30%"}`. Below 1 it is a share of the dense size.
        limits: A floor and a ceiling by name pattern, shares of the units that a group keeps:
            `{"layers.0.*": (0.5, 1.0)}`.
        metric: What the size counts: "params", "layer-params" (those of layers that hold units), "macs" on the example
            inputs, "memory" of them, "disk", "latency" (measured on the model's device), "blocks" (of depth), one of
            the other metrics on the page about several budgets, or a metric of your own
            (`l0prune.size.Metric`).
        importance: "magnitude", "activation", "taylor", "fisher", "random", or a function `f(model, groups)` that
            returns a number for each unit of all groups, or {group name: numbers of its units}; see `importances`.
        batches: Calibration batches, for all importances but "magnitude" and "random", and for the repair. A few are
            enough: 16 of 64 images, say.
        loss: `loss(model, batch)` returns a scalar, for "taylor" and "fisher"; where given, it also runs the model.
        repair: Fit what reads the removed units to the dense model by least squares, on the batches.
        ignored: Modules, or their dotted names, whose own units and inputs stay; or one.
        groups: Prune groups of your own, instead of those that following the forward pass finds.
        num_heads: Attention heads by projection, where the forward pass does not show them.
        depth: Also prune depth: residual "blocks" (or True), or single "branches" of them, as units of one group each.
        round_to: Widths stay multiples of this many channels; a head counts with all of its own. By default "auto": 8
            where most channels stand in layers of 64 or more and 8 of them are at most 1 % of the size; 1 lets
            widths be as they come.
        uniform: Keep equally many units in all groups of a kind that have equally many.
        forward_fn: Runs the model: `forward_fn(model, inputs)`, on the example inputs and without `loss` on batches.
        output_transform: Picks what matters from the model's outputs.
        form: What is cut and returned: a "module" of the model's own class, or its "graph", a torch.fx.GraphModule in
            which sizes that the forward pass fixes follow from the weights.
        seed: Of the importance "random".
        time_limit: Seconds that following the forward pass may take.
        tolerance: Largest relative difference that the proof of a group allows.
        progress: Show on standard error what goes on; the logger `l0prune` hears it in any case, at the level INFO.

    Returns:
        A plain, smaller copy in evaluation mode; `plan_of` gives what was removed.

    Raises:
        ConfigError: A setting is out of range, or the importance lacks what it needs.
        TargetError: The target is out of range, or more than can be removed.
        DataError: Example inputs or batches do not fit the model, or the loss is no scalar or has no gradient.
        GroupError: Nothing in the model can be pruned, or `ignored` names a foreign module.
        TraceError: The model cannot be followed.
        PlanError: The model was pruned before, in units that these groups cut through.
        ProofError: The copy is not exact.
    """
    # Whatever can be refused at once comes before the proof, which takes a while.
    check_importance(importance, batches=batches, loss=loss)
    gates = GateConfig(round_to=round_to, uniform=uniform, limits=limits or {})
    if repair and form == "graph":
        hint = "repair in the module form, or train what is returned"
        raise ConfigError(
            "layers are fitted in modules, and a graph has none", got='repair and form="graph"', hint=hint
        )
    if repair and batches is None:
        raise ConfigError("the repair needs batches", got="none", hint="pass a few calibration batches: batches=[...]")
    again = None if batches is None else as_batches(batches)
    # A model that is made under `torch.inference_mode` could not be trained on.
    with torch.inference_mode(False), watched(None, progress) as watcher:
        watcher.note("finding the groups and proving each")
        inspection, subject, found, earlier = prepared(
            model,
            example_inputs,
            metric=metric,
            wish=Wish.of(
                target_sparsity=target_sparsity, target_ms=target_ms, target_speedup=target_speedup, target=target
            ),
            targets=target,
            limits=gates.limits,
            round_to=round_to,
            ignored=ignored,
            groups=groups,
            num_heads=num_heads,
            depth=depth,
            forward_fn=forward_fn,
            output_transform=output_transform,
            form=form,
            time_limit=time_limit,
            tolerance=tolerance,
            stacklevel=4,  # Past `known_arguments`.
        )
        size = found.size
        ranked_by = importance if isinstance(importance, str) else "a function of your own"
        watcher.note(f"{counted(len(inspection.groups), 'group')} proved; units are ranked by {ranked_by}")
        if again is not None:
            again = Counted(again, watcher, "batches")
        gated = GatedModel(
            copied(model),
            inspection.groups,
            target_sparsity=found.sparsity,
            config=replace(gates, round_to=found.round_to),
            size_model=size,
            more=removing(found),
            form=inspection.graph,
        ).eval()
        running: dict[str, Any] = {"loss": loss, "forward_fn": forward_fn}
        scores = importances(model, inspection.groups, importance, size_model=size, batches=again, seed=seed, **running)
        gated.gates.rank_by(scores)
        if found.measured_at_cut:
            gated.meet(found, subject)
        pruned, plan = gated.pruned()
        difference = compare(gated, subject.observe, pruned=pruned)
        if reason := objection(gated, subject.observe, difference, tolerance_for(pruned, tolerance)):
            raise ProofError("the pruned model is not exact", got=reason)
        del gated
        if repair:
            assert again is not None
            watcher.note("fitting what reads the removed units to the dense model")
            repaired(model, pruned, plan, again, **running)
    whole = plan if earlier is None else earlier.then(plan)
    return remember(pruned, whole if inspection.graph is None else inspection.graph.plan(whole))
