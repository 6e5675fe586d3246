"""From a trace to groups: units that stand alike in the weights, and cost alike, make one."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import NamedTuple

import numpy as np
from torch import nn

from l0prune.discovery.found import Discovery, LeftAlone
from l0prune.discovery.sizes import sized_modules, tie_split
from l0prune.discovery.standing import Spot, Standing
from l0prune.discovery.traced import OUTPUT, UNRANKED, NormCall, Trace
from l0prune.groups import EXPERT, Attribute, Norm, Place, PruneGroup, Role
from l0prune.layers import counting_attributes, layer_units
from l0prune.support import called, listed

_IN_A_LIST = "what it ranks are no stacked weights: experts of a list lose units of their own, and stay"
_MATRIX = 2
"""Dimensions of a matrix; a stack of experts' has more."""


def grouped(model: nn.Module, found: Trace) -> Discovery:
    """The groups of a model, and what is left alone and why.

    Args:
        model: The model that was followed.
        found: What its forward pass ties together.
    """
    tie_split(found)
    classes = found.classes()
    reasons = found.reasons(classes)
    modules = dict(model.named_modules())
    layers = {key: kind for key, kind in layer_units(modules).items() if key[0] in found.leaves}
    alone: Counter[tuple[str, str, str]] = Counter()
    costs_alone: Counter[tuple[str, str, str]] = Counter()
    heads = {int(atom) for atoms in found.heads for atom in np.unique(classes[atoms])}
    picked = _picked(found, classes)
    routers = {(ranking.along.rpartition(":")[0], 0) for ranking in found.rankings}
    parameters = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    standing = Standing(found, classes)
    units, refused, plain, known = _sorted_out(standing, found, classes, reasons, layers, heads, parameters)
    for _, key, cost in sorted(refused):
        alone[key] += 1
        costs_alone[key] += cost
    for key, members in _of_no_layer(plain, known, parameters):
        alone[key] += len(members)
        costs_alone[key] += sum(cost for _, cost in members)
    groups: list[PruneGroup] = []
    taken: Counter[str] = Counter()
    for (widths, _), members in sorted(units.items(), key=lambda group: group[1][0]):
        made = _made_by(widths, layers)
        name = made[0].rpartition(".")[0] or made[0]
        if fewest := max((picked[atom] for atom in members if atom in picked), default=0):
            name = next((spot[0].rpartition(".")[0] for spot, _ in widths if spot[:2] in routers), name)
        if len(members) < 2:
            alone[name, layers.get(made[:2], "unit"), "everything here has to go together"] += 1
            continue
        if len(members) <= fewest:
            alone[name, EXPERT, "the router picks all of them"] += len(members)
            continue
        taken[name] += 1
        is_head = heads.issuperset(members) and max(width for _, width in widths) > 1
        groups.append(
            PruneGroup(
                name=name if taken[name] == 1 else f"{name}#{taken[name]}",
                kind=EXPERT if fewest else "head" if is_head else layers.get(made[:2], "unit"),
                units=len(members),
                fewest=max(fewest, 1),
                places=tuple(
                    Place(tensor=tensor, dim=dim, role=role, index=standing.indices(members, number, width))
                    for number, ((tensor, dim, role), width) in enumerate(widths)
                ),
            )
        )
    owner = _owners(groups, found, classes)
    finished = tuple(_finished(groups, found, classes, owner, modules))
    return Discovery(
        groups=finished,
        sized=sized_modules(finished, found, classes, owner, _features(layers, found, classes)),
        left_alone=tuple(
            LeftAlone(
                name=called(key[0]),
                kind=key[1],
                units=n,
                reason=key[2],
                parameters=costs_alone[key],
                interface=key[2].startswith(OUTPUT),
            )
            for key, n in alone.items()
        ),
        trace=found,
        notes=(*found.notes, *_unused(model, found)),
        hidden_units=_hidden_units(layers, found, classes, reasons),
        layers=layers,
    )


class _SortedOut(NamedTuple):
    """What becomes of the classes of atoms."""

    units: dict[tuple, list[int]]
    """Classes that can go, by where they stand and what they cost: units that do alike make one group."""
    refused: list[tuple[int, tuple[str, str, str], int]]
    """Units of layers that stay: the class; name, kind and reason; how many parameters stand on it."""
    plain: dict[tuple[str, int, str], list[tuple[int, int]]]
    """Other classes that stay, by tensor, dimension and reason, with the parameters that stand on each."""
    known: set[str]
    """The tensors of which something is told."""


def _sorted_out(
    standing: Standing,
    found: Trace,
    classes: np.ndarray,
    reasons: Mapping[int, str],
    layers: Mapping[tuple[str, int], str],
    heads: set[int],
    parameters: Mapping[str, tuple[int, ...]],
) -> _SortedOut:
    costs = _cost_signatures(found, classes)
    ranked = _picked(found, classes)
    units: dict[tuple, list[int]] = defaultdict(list)
    plain: dict[tuple[str, int, str], list[tuple[int, int]]] = defaultdict(list)
    known: set[str] = set()
    refused: list[tuple[int, tuple[str, str, str], int]] = []
    for widths, atoms in standing.alike():
        spots = [spot for spot, _ in widths]
        made = next((spot for spot in spots if spot[:2] in layers), None)
        read = any(role is Role.CONSUMES for *_, role in spots)
        can_go = read and len({spot[:2] for spot in spots}) > 1
        cost = _standing_on(widths, parameters)
        for atom in atoms:
            if atom not in reasons and can_go:
                units[widths, costs.get(atom, ())].append(atom)
            elif made and (atom in reasons or made[0] in found.used):
                reason = reasons.get(atom, _IN_A_LIST if atom in ranked else "nothing that can be gated reads it")
                kind = "head" if atom in heads else layers[made[:2]]
                refused.append((atom, (made[0].rpartition(".")[0], kind, reason), cost))
            elif atom in reasons and not made:
                for tensor, dim, _ in spots:
                    if len(parameters.get(tensor, ())) > 1 and tensor in found.used:
                        plain[tensor, dim, reasons[atom]].append((atom, cost))
        if made or any(atom not in reasons for atom in atoms):
            known.update(tensor for tensor, *_ in spots)
    return _SortedOut(units, refused, plain, known)


def _made_by(widths: Sequence[tuple[Spot, int]], layers: Mapping[tuple[str, int], str]) -> Spot:
    """The spot that a group is named after: where a layer makes the units, or reads them, or any."""
    standing_on = [spot for spot, _ in widths if spot[:2] in layers]
    return next((spot for spot in standing_on if spot[2] is Role.PRODUCES), (standing_on or [widths[0][0]])[0])


def _hidden_units(
    layers: Iterable[tuple[str, int]], found: Trace, classes: np.ndarray, reasons: Mapping[int, str]
) -> int:
    """How many units layers make, without those of the model's own output."""
    return sum(
        not reasons.get(atom, "").startswith(OUTPUT)
        for tensor, dim in layers
        if tensor in found.used
        for atom in classes[found.leaves[tensor][dim]].tolist()
    )


def _of_no_layer(
    plain: Mapping[tuple[str, int, str], list[tuple[int, int]]],
    known: set[str],
    parameters: Mapping[str, tuple[int, ...]],
) -> Iterator[tuple[tuple[str, str, str], list[tuple[int, int]]]]:
    """Units that stay of weights that a module of one's own keeps as plain parameters, as stacked experts.

    Experts that stay are told of in any case, whatever else of their weights can go.

    Args:
        plain: By tensor, dimension and reason, classes with how many parameters stand on each.
        known: The tensors of which something is told already.
        parameters: Their shapes.

    Yields:
        Name, kind and reason, and the classes.
    """
    for (tensor, _, reason), members in sorted(plain.items(), key=lambda there: min(there[1])):
        experts = reason.startswith(UNRANKED) and len(parameters[tensor]) > _MATRIX
        if experts or tensor not in known:
            yield (tensor, EXPERT if experts else "unit", reason), members


def _picked(found: Trace, classes: np.ndarray) -> dict[int, int]:
    """How many units of its kind a router picks at the most, by class."""
    picked: dict[int, int] = {}
    for ranking in found.rankings:
        units, widths = np.unique(classes[ranking.atoms], return_counts=True)
        for unit, width in zip(units.tolist(), widths.tolist(), strict=True):
            picked[unit] = max(picked.get(unit, 0), -(-ranking.picked // width))
    return picked


def _standing_on(widths: Iterable[tuple[Spot, int]], parameters: Mapping[str, tuple[int, ...]]) -> int:
    """How many parameters there are at places of a unit."""
    return sum(
        width * prod(parameters[tensor]) // parameters[tensor][dim]
        for (tensor, dim, _), width in widths
        if tensor in parameters
    )


def unused_modules(model: nn.Module, found: Trace) -> list[str]:
    """The modules with parameters of their own that the forward pass did not use."""
    return sorted({path.rpartition(".")[0] for path, _ in model.named_parameters() if path not in found.used})


def _unused(model: nn.Module, found: Trace) -> list[str]:
    unused = unused_modules(model, found)
    return [f"never used in the forward pass, left alone: {listed(map(called, unused))}"] if unused else []


def _cost_signatures(found: Trace, classes: np.ndarray) -> dict[int, tuple]:
    """How often each class stands in each extent of each operator: units of one group must cost alike."""
    signatures: dict[int, list] = defaultdict(list)
    for c, cost in enumerate(found.costs):
        for e, atoms in enumerate(cost.extents):
            present, counts = np.unique(classes[atoms[atoms != 0]], return_counts=True)
            for atom, count in zip(present.tolist(), counts.tolist(), strict=True):
                signatures[atom].append((c, e, count))
    return {atom: tuple(places) for atom, places in signatures.items()}


def _standing_alike(calls: Iterable[NormCall], found: Trace, classes: np.ndarray) -> list[str | None]:
    """A tensor and dimension on which the same units stand alike, for norms without a tensor along their channels."""
    wanted = [classes[call.atoms].tobytes() for call in calls]
    first: dict[bytes, str] = {}
    for name, leaf in found.leaves.items() if wanted else ():
        for d, atoms in enumerate(leaf):
            first.setdefault(classes[atoms].tobytes(), f"{name}:{d}")
    return [first.get(units) for units in wanted]


def _owners(groups: Sequence[PruneGroup], found: Trace, classes: np.ndarray) -> np.ndarray:
    """(A,) the number of the group that each class belongs to, -1 for none."""
    owner = np.full(found.size, -1)
    for g, group in enumerate(groups):
        for place in group.places:
            assert place.dim is not None
            owner[classes[found.leaves[place.tensor][place.dim][place.index.ravel()]]] = g
    return owner


def _features(layers: Iterable[tuple[str, int]], found: Trace, classes: np.ndarray) -> np.ndarray:
    """(A,) the classes that layers make."""
    made = np.zeros(found.size, dtype=bool)
    for tensor, dim in layers:
        made[classes[found.leaves[tensor][dim]]] = True
    return made


def _finished(
    groups: Sequence[PruneGroup],
    found: Trace,
    classes: np.ndarray,
    owner: np.ndarray,
    modules: Mapping[str, nn.Module],
) -> list[PruneGroup]:
    """Groups with the norms that mix their units and the attributes that count them."""
    norms: list[dict[Norm, None]] = [{} for _ in groups]
    weights: dict[str, set[bytes]] = defaultdict(set)
    for name, leaf in found.leaves.items():
        weights[name.rpartition(".")[0]].update(classes[atoms].tobytes() for atoms in leaf)
    # What a norm holds may be read by other code alone, and be of another length.
    bare = [call for call in found.norms if classes[call.atoms].tobytes() not in weights[call.module]]
    alike = dict(zip(map(id, bare), _standing_alike(bare, found, classes), strict=True))
    # A router's weight has its units along its rows.
    routers = {r.along.rpartition(":")[0].rpartition(".")[0]: r.along for r in found.rankings}
    for call in found.norms:
        along = routers.get(call.module, alike.get(id(call)))
        for g in np.unique(owner[classes[call.atoms]]).tolist():
            if g < 0:
                continue
            norms[g][Norm(module=call.module, channel_dim=call.channel_dim, along=along)] = None
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
            fewest=group.fewest,
            places=group.places,
            norms=tuple(norms[g]),
            attributes=tuple(attributes[g]),
        )
        for g, group in enumerate(groups)
    ]
