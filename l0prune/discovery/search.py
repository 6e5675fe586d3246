"""Prune groups of any module, found by following a forward pass."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from l0prune.discovery.rules import apply_rule, module_rule
from l0prune.discovery.traced import OUTPUT, Trace
from l0prune.discovery.tracer import Tracer
from l0prune.errors import GroupError, TraceError
from l0prune.groups import Attribute, Norm, Place, PruneGroup, Role
from l0prune.layers.registry import counting_attributes, layer_units
from l0prune.support.modules import copied, is_inside, path_of, several
from l0prune.support.text import listed
from l0prune.support.torch_internals import plain_attention


@dataclass(frozen=True, kw_only=True)
class LeftAlone:
    """Hidden units that cannot be pruned, and why."""

    name: str
    kind: str
    units: int
    reason: str
    interface: bool = False
    """Whether they are the model's own output: not hidden at all."""


@dataclass(frozen=True, kw_only=True)
class Discovery:
    """What following a forward pass has found."""

    groups: tuple[PruneGroup, ...]
    left_alone: tuple[LeftAlone, ...] = ()
    trace: Trace | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()
    hidden_units: int = 0
    """Units that layers make in all, without those of the model's own output."""
    layers: Mapping[tuple[str, int], str] = field(default_factory=dict, repr=False)
    """The dimensions (tensor, dim) on which layers make units, with the kind of unit."""

    @property
    def reached_units(self) -> int:
        """Those of `hidden_units` that stand in a group."""
        return sum(p.index.size for group in self.groups for p in group.places if (p.tensor, p.dim) in self.layers)

    def without(self, reasons: Mapping[str, str]) -> "Discovery":
        """Leave out groups by name, for a reason each."""
        refused = [
            LeftAlone(name=group.name, kind=group.kind, units=group.units, reason=reasons[group.name])
            for group in self.groups
            if group.name in reasons
        ]
        kept = tuple(group for group in self.groups if group.name not in reasons)
        return replace(self, groups=kept, left_alone=(*self.left_alone, *refused))


def discover(
    model: nn.Module,
    observe: Callable[[nn.Module], Any],
    *,
    ignored: nn.Module | str | Sequence[nn.Module | str] = (),
    num_heads: Mapping[nn.Module, int] | None = None,
    time_limit: float = 60.0,
) -> Discovery:
    """Find the prune groups of a model by running it once in each mode.

    Args:
        model: Any module without gates; it is left as it is.
        observe: Runs a model on example inputs and returns its outputs.
        ignored: Modules, or their dotted names, whose own units and inputs are left alone; or one.
        num_heads: Heads of projections whose structure the forward pass does not show.
        time_limit: Seconds that tracing may take.

    Raises:
        GroupError: `ignored` or `num_heads` names a module that is not in the model.
        TraceError: The forward pass fails or takes too long.
    """
    found = trace(model, observe, time_limit=time_limit)
    for path in (path_of(model, module) for module in several(ignored)):
        for name, dims in found.leaves.items():
            if is_inside(name, path):
                found.pins += [(atoms, "told to ignore it") for atoms in dims if len(atoms)]
    for module, heads in (num_heads or {}).items():
        _tie_heads(found, path_of(model, module), heads)
    return _grouped(model, found)


def trace(
    model: nn.Module, observe: Callable[[nn.Module], Any], *, training: bool = True, time_limit: float = 60.0
) -> Trace:
    """Watch a model's forward pass in evaluation mode, and in training mode too where that runs.

    Args:
        model: Any module without gates; a copy of it is run.
        observe: Runs a model on example inputs and returns its outputs.
        training: Also look at the branches of training mode.
        time_limit: Seconds after which tracing gives up.

    Raises:
        TraceError: The model cannot be followed, or its forward pass fails or takes too long.
    """
    check_traceable(model)
    try:
        twin = copied(model)
    except Exception as error:
        raise TraceError(
            "model cannot be copied",
            got=f"{type(error).__name__}: {_line(error)}",
            hint="nn.utils.weight_norm keeps a computed tensor: use nn.utils.parametrizations.weight_norm",
        ) from error
    tracer = Tracer(twin, apply_rule, module_rule, time_limit)
    with plain_attention(), torch.random.fork_rng(), torch.no_grad():
        try:
            tracer.watch(lambda: observe(twin.eval()))
        except TraceError:
            raise
        except Exception as error:
            raise TraceError(
                "the forward pass failed on the example inputs",
                where=tracer.culprit(error) or type(model).__name__,
                got=f"{type(error).__name__}: {_line(error)}",
                hint="pass inputs that `model(*example_inputs)` accepts, on the model's device",
            ) from error
        if training:
            costs, tracer.trace.costs = tracer.trace.costs, []
            try:
                tracer.watch(lambda: observe(twin.train()))
            except TraceError:
                raise
            except Exception as error:
                reason = f"{type(error).__name__}: {_line(error)}"
                tracer.trace.notes.append(f"training mode was not looked at: the forward pass failed ({reason})")
            tracer.trace.costs = costs
    return tracer.trace


def check_traceable(model: nn.Module) -> None:
    """Check that a model is made of Python modules and tensors that have a shape.

    Raises:
        TraceError: Names the first part that is not.
    """
    if isinstance(model, torch._dynamo.OptimizedModule):
        hint = "pass the module that torch.compile was given, and compile it once there are gates on it"
        raise TraceError("a compiled model cannot be followed", where=type(model._orig_mod).__name__, hint=hint)
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            hint = "pass the model as it was before torch.jit.script or torch.jit.trace"
            raise TraceError("a scripted module cannot be followed", where=path or type(module).__name__, hint=hint)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if is_lazy(tensor):
            raise TraceError("a lazy module has no shape yet", where=name, hint="run one batch through the model first")


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) < 200 else f"{text[:200]}..."


def _tie_heads(found: Trace, path: str, heads: int) -> None:
    atoms = found.leaves.get(f"{path}.weight", [np.zeros(0, int)])[0]
    if heads < 1 or len(atoms) % heads:
        raise GroupError(
            "heads do not divide the outputs", where=path, got=heads, expected=f"a divisor of {len(atoms)}"
        )
    table = atoms.reshape(heads, -1)
    first = np.broadcast_to(table[:, :1], table.shape)
    found.same.append((table, first))
    found.heads.append(table[:, 0])


def _grouped(model: nn.Module, found: Trace) -> Discovery:
    classes = found.classes()
    reasons = found.reasons(classes)
    modules = dict(model.named_modules())
    layers = {key: kind for key, kind in layer_units(modules).items() if key[0] in found.leaves}
    costs = _cost_signatures(found, classes)
    # Units that stand alike in the weights, and cost alike, make one group.
    units: dict[tuple, list[int]] = defaultdict(list)
    alone: Counter[tuple[str, str, str]] = Counter()
    standing = _standing(found, classes)
    for atom, places in standing.items():
        made = next((p for p in places if p[:2] in layers), None)
        read = any(role is Role.CONSUMES for *_, role in places)
        if atom not in reasons and read and len({place[:2] for place in places}) > 1:
            widths = tuple((place, len(indices)) for place, indices in places.items())
            units[widths, costs.get(atom, ())].append(atom)
        elif made and (atom in reasons or made[0] in found.used):
            reason = reasons.get(atom, "nothing that can be gated reads it")
            alone[made[0].rpartition(".")[0], layers[made[:2]], reason] += 1
    heads = {int(atom) for atoms in found.heads for atom in np.unique(classes[atoms])}
    groups: list[PruneGroup] = []
    taken: Counter[str] = Counter()
    for (widths, _), members in units.items():
        made = next((place for place, _ in widths if place[:2] in layers and place[2] is Role.PRODUCES), widths[0][0])
        name = made[0].rpartition(".")[0] or made[0]
        if len(members) < 2:
            alone[name, layers.get(made[:2], "unit"), "everything here has to go together"] += 1
            continue
        taken[name] += 1
        is_head = heads.issuperset(members) and max(width for _, width in widths) > 1
        groups.append(
            PruneGroup(
                name=name if taken[name] == 1 else f"{name}#{taken[name]}",
                kind="head" if is_head else layers.get(made[:2], "unit"),
                units=len(members),
                places=tuple(
                    Place(
                        tensor=place[0],
                        dim=place[1],
                        role=place[2],
                        index=np.array([standing[m][place] for m in members]),
                    )
                    for place, _ in widths
                ),
            )
        )
    return Discovery(
        groups=tuple(_finished(groups, found, classes, modules)),
        left_alone=tuple(
            LeftAlone(name=name, kind=kind, units=n, reason=reason, interface=reason.startswith(OUTPUT))
            for (name, kind, reason), n in alone.items()
        ),
        trace=found,
        notes=(*found.notes, *_unused(model, found)),
        hidden_units=sum(
            not reasons.get(atom, "").startswith(OUTPUT)
            for tensor, dim in layers
            if tensor in found.used
            for atom in classes[found.leaves[tensor][dim]].tolist()
        ),
        layers=layers,
    )


def _standing(found: Trace, classes: np.ndarray) -> dict[int, dict[tuple[str, int, Role], list[int]]]:
    """Where each class stands: the indices on each (tensor, dimension, role)."""
    consumed = np.zeros(found.size, dtype=bool)
    for atoms in found.consumed:
        consumed[atoms] = True
    standing: dict[int, dict[tuple[str, int, Role], list[int]]] = defaultdict(lambda: defaultdict(list))
    for tensor, dims in found.leaves.items():
        for dim, atoms in enumerate(dims):
            for index, (atom, reads) in enumerate(zip(classes[atoms].tolist(), consumed[atoms].tolist(), strict=True)):
                standing[atom][tensor, dim, Role.CONSUMES if reads else Role.PRODUCES].append(index)
    return standing


def unused_modules(model: nn.Module, found: Trace) -> list[str]:
    """The modules with parameters of their own that the forward pass did not use."""
    return sorted({path.rpartition(".")[0] for path, _ in model.named_parameters() if path not in found.used})


def _unused(model: nn.Module, found: Trace) -> list[str]:
    unused = unused_modules(model, found)
    return [f"never used in the forward pass, left alone: {listed(unused)}"] if unused else []


def _cost_signatures(found: Trace, classes: np.ndarray) -> dict[int, tuple]:
    """How often each class stands in each extent of each operator: units of one group must cost alike."""
    signatures: dict[int, list] = defaultdict(list)
    for c, cost in enumerate(found.costs):
        for e, atoms in enumerate(cost.extents):
            present, counts = np.unique(classes[atoms[atoms != 0]], return_counts=True)
            for atom, count in zip(present.tolist(), counts.tolist(), strict=True):
                signatures[atom].append((c, e, count))
    return {atom: tuple(places) for atom, places in signatures.items()}


def _finished(
    groups: Sequence[PruneGroup], found: Trace, classes: np.ndarray, modules: Mapping[str, nn.Module]
) -> list[PruneGroup]:
    """Groups with the norms that mix their units and the attributes that count them."""
    owner = np.full(found.size, -1)
    for g, group in enumerate(groups):
        for place in group.places:
            assert place.dim is not None
            owner[classes[found.leaves[place.tensor][place.dim][place.index.ravel()]]] = g
    norms: list[dict[Norm, None]] = [{} for _ in groups]
    for call in found.norms:
        for g in np.unique(owner[classes[call.atoms]]).tolist():
            if g >= 0:
                norms[g][Norm(module=call.module, channel_dim=call.channel_dim)] = None
    attributes: list[dict[Attribute, None]] = [{} for _ in groups]
    for reading in found.readings:
        owners, counts = np.unique(owner[classes[reading.atoms]], return_counts=True)
        if len(owners) != 1 or owners[0] < 0:
            continue
        g, length = int(owners[0]), int(counts[0])
        for name in counting_attributes(modules.get(reading.module), length):
            attribute = Attribute(module=reading.module, name=name, per_unit=length // groups[g].units)
            attributes[g][attribute] = None
    return [
        PruneGroup(
            name=group.name,
            kind=group.kind,
            units=group.units,
            places=group.places,
            norms=tuple(norms[g]),
            attributes=tuple(attributes[g]),
        )
        for g, group in enumerate(groups)
    ]
