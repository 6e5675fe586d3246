"""What can be pruned in a caller's model, checked before anything is done to it."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from l0prune.discovery import Depth
from l0prune.errors import ConfigError, GroupError
from l0prune.example import Example
from l0prune.gates import Gates
from l0prune.groups import PruneGroup
from l0prune.pruner.inspection import ANY_MODEL_TOLERANCE, Form, Inspection, check_form, inspect
from l0prune.removal import RemovalPlan, remembered
from l0prune.size import (
    Limits,
    Metric,
    RoundTo,
    Subject,
    Target,
    Targets,
    Wish,
    bounds_of,
    check_within,
    joint_target,
    metric_named,
    read_targets,
)
from l0prune.size.latency import latency_cache
from l0prune.support import listed


def prepared(
    model: nn.Module,
    example_inputs: Any,
    *,
    metric: str | Metric = "params",
    wish: Wish | None = None,
    targets: Targets | None = None,
    limits: Limits | None = None,
    round_to: RoundTo = None,
    ignored: nn.Module | str | Sequence[nn.Module | str] = (),
    groups: Sequence[PruneGroup] | None = None,
    num_heads: Mapping[nn.Module, int] | None = None,
    depth: Depth | bool | None = None,
    forward_fn: Callable[[nn.Module, Any], Any] | None = None,
    output_transform: Callable[[Any], Any] | None = None,
    form: Form = "module",
    time_limit: float = 60.0,
    tolerance: float = ANY_MODEL_TOLERANCE,
    stacklevel: int = 3,
) -> tuple[Inspection, Subject, Target, RemovalPlan | None]:
    """Inspect a model that is to be pruned.

    Args:
        model: The model; it is left as it is.
        example_inputs: As `inspect` takes them, and so are the others.
        metric: What the target counts, by name or as an object.
        wish: What is asked for.
        targets: What is asked for of several metrics, instead of `metric` and `wish`.
        limits: A floor and a ceiling by name pattern: shares of the units that a group keeps.
        round_to: Widths stay multiples of this many channels; None for "auto".
        ignored: Modules to leave alone.
        groups: Prune groups of the caller's own.
        num_heads: Attention heads by projection.
        depth: Whether residual blocks are units.
        forward_fn: Runs the model.
        output_transform: Picks what matters from its outputs.
        form: What is cut.
        time_limit: Seconds that following the forward pass may take.
        tolerance: Largest relative difference that the proof of a group allows.
        stacklevel: Of warnings, counted from here: 3 is the caller of the caller.

    Returns:
        What can be pruned, what the metric looked at, what it is to remove, and the plan that has made the model, if it
        was pruned.

    Raises:
        ConfigError: A setting is wrong, or the metric cannot be counted.
        TargetError: What is asked for cannot be met.
        GroupError: Nothing can be pruned, or gates are there already.
        PlanError: The model was pruned before, in units that these groups cut through.
        L0PruneError: As `inspect` does.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError("model has the wrong type", got=type(model).__name__, expected="a torch.nn.Module")
    if num_heads is not None and not isinstance(num_heads, Mapping):
        raise ConfigError("num_heads has the wrong type", got=repr(num_heads), expected="{projection: heads}")
    asked = [] if targets is None else read_targets(targets)
    metric = metric_named(metric)
    if wish is not None:
        metric.check(wish)
    check_form(form, depth)
    measured = any(one.measured_at_cut for one in (metric, *(target.metric for target in asked)))
    if form == "graph" and measured:
        hint = 'count "macs" instead, or measure what finalize() or prune() returns'
        raise ConfigError("latency is measured on modules", got='metric "latency" and form="graph"', hint=hint)
    if any(isinstance(module, Gates) for module in model.modules()):
        raise GroupError("model has gates already", hint="finalize() it first, then prune the pruned model")
    found = inspect(
        model,
        example_inputs,
        groups=groups,
        ignored=ignored,
        num_heads=num_heads,
        depth=depth,
        forward_fn=forward_fn,
        output_transform=output_transform,
        form="module" if form is None else form,
        time_limit=time_limit,
        tolerance=tolerance,
    )
    if not found.groups:
        raise GroupError("nothing in the model can be pruned", where=type(model).__name__, hint=_why(found))
    if found.endangered:
        warnings.warn(
            f"the example inputs never reach {listed(found.endangered)}: if others do, the pruned model "
            "may fail there; give examples that reach them, or name in `ignored` what they share a width with",
            stacklevel=stacklevel,
        )
    earlier = remembered(model)
    if earlier is not None:
        earlier.check_next(found.groups)
    subject = Subject(
        model=model,
        groups=found.groups,
        observe=Example(example_inputs, forward_fn, output_transform).checked(model),
        parameters=found.parameter_model,
        macs=found.mac_model,
        time_limit=time_limit,
        round_to="auto" if round_to is None else round_to,
        cache=latency_cache(model, found.groups),
    )
    # Names and shares are checked before anything is measured.
    bounds_of(found.groups, limits or {})

    def targeted(subject: Subject) -> Target:
        return metric.target(subject, wish) if wish is not None else joint_target(subject, asked)

    target = targeted(subject)
    counted = {g for one in (target, *target.more) for g in one.size.counted}
    # Limits name groups, which are all looked for then.
    if not limits and not target.measured_at_cut and 0 < len(counted) < len(found.groups):
        # Nothing is gained where other units go.
        found = found.of(sorted(counted))
        parameters, macs = found.parameter_model, found.mac_model
        subject = replace(subject, groups=found.groups, parameters=parameters, macs=macs)
        target = targeted(subject)
    if limits:
        check_within(target, bounds_of(found.groups, limits, target.round_to or 1))
    return found, subject, target, earlier


def _why(inspection: Inspection) -> str:
    reasons = [f"{name}: {reason}" for name, reason in inspection.refused.items()]
    if not reasons:
        return "no layer's outputs stay inside it; every unit is an input or an output of the model"
    more = f" (and {len(reasons) - 3} more)" if len(reasons) > 3 else ""
    return "; ".join(reasons[:3]) + more
