"""What a network's prune groups are, what a unit of each costs, and whether pruning it is proved exact."""

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import nn

from l0prune.discovery import (
    Depth,
    Discovery,
    LeftAlone,
    Trace,
    check_traceable,
    checked_depth,
    discover,
    trace,
    unused_modules,
)
from l0prune.errors import ConfigError, GroupError, L0PruneError, TraceError
from l0prune.example import Example, Observe
from l0prune.graphs import GraphForm, graph_form
from l0prune.groups import PruneGroup, check_groups
from l0prune.proof import prove_on_copy
from l0prune.pruner.attributes import proved_with_attributes
from l0prune.pruner.shares import Share, shares_of
from l0prune.removal import GRAPH, MODULE
from l0prune.size import SizeModel, mac_size, parameter_size, unit_sizes
from l0prune.support import called, is_inside, known_arguments, listed, model_shapes, path_of, several

Form = Literal["module", "graph"]
ANY_MODEL_TOLERANCE = 1e-4
"""Largest relative difference that a proof on a caller's model allows: deep networks round more than shallow ones."""


@dataclass(frozen=True, kw_only=True)
class InspectedGroup:
    """One prune group and its proof."""

    name: str
    kind: str
    units: int
    unit_parameters: int
    """Parameters that leave the dense network with one unit."""
    unit_macs: int | None
    """Multiply-accumulates on the example inputs that leave with one unit; None where they could not be counted."""
    proved: bool
    reason: str = ""
    """Why it is refused."""
    form: str = ""
    """What it can be pruned in: "module", the network's own class; "graph", the graph form alone; "" where it stays, or
    where the graph form was not tried."""
    written: tuple[str, ...] = ()
    """Methods, "Attention.forward" say, that a cut writes anew, because they derive sizes from which units are gone."""


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What can be pruned in a model, and what cannot and why. Prints as a table, in a notebook too."""

    rows: tuple[InspectedGroup, ...]
    left_alone: tuple[LeftAlone, ...]
    """What discovery did not make a group of."""
    notes: tuple[str, ...] = ()
    groups: tuple[PruneGroup, ...] = field(default=(), repr=False)
    """The proved ones."""
    parameter_model: SizeModel = field(repr=False)
    mac_model: SizeModel | None = field(repr=False)
    """Multiply-accumulates on the example inputs; None where they could not be counted."""
    shares: tuple[Share, ...] = ()
    """The share of units that can go, by kind."""
    graph: GraphForm | None = field(default=None, repr=False)
    """What is cut in place of the model, where the graph form is asked for."""
    endangered: tuple[str, ...] = ()
    """Modules that the example inputs never reach, as wide as something that can be pruned: if other inputs reach them,
    the pruned model may fail there."""

    @property
    def refused(self) -> dict[str, str]:
        """Everything hidden that stays as it is, by name, with the reason."""
        refused = {alone.name: alone.reason for alone in self.left_alone if not alone.interface}
        return refused | {row.name: row.reason for row in self.rows if not row.proved}

    @property
    def costs(self) -> dict[str, int]:
        """What every refusal costs: the parameters that stand on units which stay, by name, the most first.

        A parameter in which two such units meet counts for both.
        """
        costs: dict[str, int] = {}
        for alone in self.left_alone:
            if not alone.interface:
                costs[alone.name] = costs.get(alone.name, 0) + alone.parameters
        for row in self.rows:
            if not row.proved:
                costs[row.name] = costs.get(row.name, 0) + row.units * row.unit_parameters
        return dict(sorted(costs.items(), key=lambda cost: -cost[1]))

    def of(self, numbers: Sequence[int]) -> "Inspection":
        """The same with some of the proved groups alone, by their numbers; all others are to stay."""
        macs = self.mac_model
        return replace(
            self,
            groups=tuple(self.groups[g] for g in numbers),
            parameter_model=self.parameter_model.where_others_stay(numbers),
            mac_model=None if macs is None else macs.where_others_stay(numbers),
        )

    def to_json(self) -> dict[str, Any]:
        """All that is shown, as a JSON object."""
        size = self.parameter_model
        return {
            "groups": [{**vars(row), "written": list(row.written)} for row in self.rows],
            "left_alone": [vars(alone) for alone in self.left_alone],
            "shares": [vars(share) for share in self.shares],
            "costs": self.costs,
            "parameters": size.total,
            "can_go": size.total - size.floor,
            "notes": list(self.notes),
        }

    def _table(self) -> list[tuple[str, ...]]:
        table = [("group", "kind", "units", "parameters a unit", "MACs a unit", "form", "proved")]
        for row in self.rows:
            macs = "" if row.unit_macs is None else f"{row.unit_macs:,}"
            written = f", writes {listed(row.written)} anew" if row.written else ""
            proved = f"yes{written}" if row.proved else f"no: {row.reason}"
            table.append((row.name, row.kind, f"{row.units:,}", f"{row.unit_parameters:,}", macs, row.form, proved))
        for alone in self.left_alone:
            cost = f"{alone.parameters // alone.units:,}"
            table.append((alone.name, alone.kind, f"{alone.units:,}", cost, "", "", f"left alone: {alone.reason}"))
        return table

    def _summary(self) -> str:
        size = self.parameter_model
        removable = size.total - size.floor
        share = f"{removable:,} of {size.total:,} parameters ({removable / max(size.total, 1):.1%}) can go"
        line = f"{len(self.groups)} of {len(self.rows)} groups proved; {share}"
        lines = [line, *self.notes]
        if self.shares:
            shares = (f"{s.reached:,} of {s.units:,} {s.kind} ({s.reached / s.units:.0%})" for s in self.shares)
            lines.insert(1, f"units that can go: {', '.join(shares)}")
        if costs := list(self.costs.items()):
            most = ", ".join(f"{name} {cost:,}" for name, cost in costs[:3])
            more = f" and {len(costs) - 3} more" if len(costs) > 3 else ""
            lines.insert(2, f"parameters on units that stay: {most}{more}")
        return "\n".join(lines)

    def __str__(self) -> str:
        table = self._table()
        widths = [max(len(row[column]) for row in table) for column in range(6)]
        right = (False, False, True, True, True, False)
        lines = []
        for row in table:
            cells = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=False)]
            lines.append("  ".join([*cells, row[6]]).rstrip())
        lines.insert(1, "  ".join("-" * width for width in [*widths, 6]))
        return "\n".join([*lines, "", self._summary()])

    def _repr_html_(self) -> str:
        head, *rows = [[html.escape(cell) for cell in row] for row in self._table()]
        titles = "".join(f"<th>{cell}</th>" for cell in head)
        body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
        summary = html.escape(self._summary()).replace("\n", "<br>")
        return f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table><p>{summary}</p>"


# Gates cannot be tried on a copy that is made under `torch.inference_mode`.
@known_arguments
@torch.inference_mode(False)
def inspect(
    model: nn.Module,
    example_inputs: Any,
    *,
    groups: Sequence[PruneGroup] | None = None,
    ignored: nn.Module | str | Sequence[nn.Module | str] = (),
    num_heads: Mapping[nn.Module, int] | None = None,
    depth: Depth | bool | None = None,
    forward_fn: Callable[[nn.Module, Any], Any] | None = None,
    output_transform: Callable[[Any], Any] | None = None,
    form: Form | None = None,
    time_limit: float = 60.0,
    tolerance: float = ANY_MODEL_TOLERANCE,
) -> Inspection:
    """Find what can be pruned in a model, and prove it on a copy.

    Args:
        model: Any module; it is left as it is.
        example_inputs: A tensor; a tuple or list of positional arguments; or a mapping of keyword arguments.
        groups: Prune groups of your own, instead of those that following the forward pass finds.
        ignored: Modules, or their dotted names, to leave alone; or one.
        num_heads: Attention heads of a projection that the forward pass does not show.
        depth: Also prune depth: residual "blocks" (or True), or single "branches" of them, as units of one group each.
        forward_fn: Runs the model: `forward_fn(model, example_inputs)`.
        output_transform: Picks what matters from the model's outputs.
        form: What is to be cut: the "module" itself, or its "graph", in which sizes that a forward pass fixes follow
            from the weights. By default the module; the graph is tried for what is refused there, so that `form` of a
            row says what it needs.
        time_limit: Seconds that following the forward pass may take.
        tolerance: Largest relative difference between gated and pruned outputs.

    Raises:
        ConfigError: `depth` or `form` is something else, `groups` are given with depth, or depth with a graph.
        DataError: Model and example inputs are on other devices, or on meta, or the outputs hold nothing to compare.
        GroupError: `groups`, `ignored` or `num_heads` do not fit the model.
        TraceError: The model cannot be followed, or its forward pass fails or takes longer than `time_limit`; or a
            graph is asked for and the model cannot be exported.
    """
    check_traceable(model)
    check_form(form, depth)
    if checked_depth(depth) is not None and groups is not None:
        raise ConfigError("depth is found with the groups", got="groups and depth", expected="one of them")
    observe = Example(example_inputs, forward_fn, output_transform).checked(model)
    if groups is None:
        found = discover(model, observe, ignored=ignored, num_heads=num_heads, time_limit=time_limit, depth=depth)
        found, faults, notes = proved_with_attributes(model, found, observe, tolerance)
    else:
        found = _given(model, observe, groups, ignored, time_limit)
        faults, notes = prove_on_copy(model, found.groups, observe, tolerance)
    forms = {group.name: MODULE for group in found.groups if group.name not in faults}
    graph = None
    if form == GRAPH or (form is None and any(map(_is_of_sizes, faults.values())) and not checked_depth(depth)):
        try:
            graph = graph_form(model, found.groups, observe, time_limit=time_limit)
            remarks, stay, more = graph.notes, *prove_on_copy(model, found.groups, observe, tolerance, form=graph)
        except L0PruneError:
            # Nobody has asked for it: form="graph" says why there is none.
            if form == GRAPH:
                raise
        else:
            forms = {group.name: GRAPH for group in found.groups if group.name not in stay} | forms
            if form == GRAPH:
                faults, notes = stay, [*remarks, *more]
                found = replace(found, groups=tuple(replace(g, attributes=(), calls=()) for g in found.groups))
    proved = tuple(group for group in found.groups if group.name not in faults)
    sizes = parameter_size(model, found.groups)
    unit_macs = _unit_macs(model, found, proved)
    modules = dict(model.named_modules())
    return Inspection(
        rows=tuple(
            InspectedGroup(
                name=group.name,
                kind=group.kind,
                units=group.units,
                unit_parameters=unit,
                unit_macs=mac,
                proved=group.name not in faults,
                reason=faults.get(group.name, ""),
                form=forms.get(group.name, ""),
                written=_written(group, modules),
            )
            for group, unit, mac in zip(found.groups, unit_sizes(sizes), unit_macs, strict=True)
        ),
        left_alone=found.left_alone,
        notes=(*found.notes, *notes),
        groups=proved,
        shares=shares_of(found.groups, (group.name for group in proved), found.left_alone, found.layers),
        parameter_model=parameter_size(model, proved),
        mac_model=mac_size(model, proved, found.trace) if found.trace else None,
        graph=graph if form == GRAPH else None,
        endangered=_endangered(model, proved, found.trace) if found.trace else (),
    )


def _is_of_sizes(reason: str) -> bool:
    """Whether sizes that a forward pass fixes may be the reason: the cut fails, or gives other values."""
    return reason.startswith(("the cut forward pass fails", "relative difference", "the cut makes"))


def check_form(form: object, depth: object = None) -> None:
    """Raise a `ConfigError` where a form is none, or cannot be had with depth."""
    if form not in (None, MODULE, GRAPH):
        raise ConfigError("no such form", got=repr(form), expected='"module" or "graph"')
    if form == GRAPH and checked_depth(depth) is not None:
        hint = "prune depth in the module form first, or widths alone"
        raise ConfigError("residual blocks cannot be taken out of a graph", got='depth and form="graph"', hint=hint)


def _written(group: PruneGroup, modules: Mapping[str, nn.Module]) -> tuple[str, ...]:
    names = (
        f"{type(modules[call.module]).__name__}.{call.method.rpartition('/')[0] or call.method}" for call in group.calls
    )
    return tuple(dict.fromkeys(names))


def _unit_macs(model: nn.Module, found: Discovery, proved: Sequence[PruneGroup]) -> list[int | None]:
    """Of each group; None where they cannot be counted."""
    if found.trace is None:
        return [None] * len(found.groups)
    try:
        return [*unit_sizes(mac_size(model, found.groups, found.trace))]
    except GroupError:
        # Groups of the caller's own may be wrong, in ways that cannot be counted: the proof has refused them.
        counted = dict(zip((g.name for g in proved), unit_sizes(mac_size(model, proved, found.trace)), strict=True))
        return [counted.get(group.name) for group in found.groups]


def _endangered(model: nn.Module, groups: Sequence[PruneGroup], found: Trace) -> tuple[str, ...]:
    shapes = model_shapes(model)
    widths = {shapes[p.tensor][p.dim] for group in groups for p in group.places if p.dim is not None}
    return tuple(
        called(path)
        for path in unused_modules(model, found)
        if any(widths & {*p.shape} for p in model.get_submodule(path).parameters(recurse=False))
    )


def _given(
    model: nn.Module,
    observe: Observe,
    groups: Sequence[PruneGroup],
    ignored: nn.Module | str | Sequence[nn.Module | str],
    time_limit: float,
) -> Discovery:
    """The caller's own groups, with a trace where there can be one."""
    check_groups(groups, model_shapes(model))
    paths = [path_of(model, module) for module in several(ignored)]
    kept = tuple(group for group in groups if not any(is_inside(place.tensor, *paths) for place in group.places))
    try:
        return Discovery(groups=kept, trace=trace(model, observe, training=False, time_limit=time_limit))
    except TraceError as error:
        return Discovery(groups=kept, notes=(f"multiply-accumulates are not counted: {error}",))
