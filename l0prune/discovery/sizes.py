"""Which sizes of a method's calls a cut makes wrong, and which units they count."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from l0prune.discovery.traced import SizedDim, Trace, TracedCall
from l0prune.groups import Attribute, PruneGroup, SizedCall
from l0prune.support import can_write, digest_of, is_inside, size_name

_OWN, _REST = 0, -1


class SizedModule:
    """The calls of one module with sizes that it could keep, and the attributes that each group mends after a cut."""

    def __init__(self, kind: type) -> None:
        self.kind = kind
        self.calls: list[SizedCall] = []
        self.attributes: dict[str, list[Attribute]] = {}
        """By group."""


def sized_modules(
    groups: Sequence[PruneGroup], found: Trace, classes: np.ndarray, owner: np.ndarray
) -> dict[str, SizedModule]:
    """By path, modules whose methods are given sizes that units of groups stand behind.

    Args:
        groups: The groups.
        found: What the forward pass ties together.
        classes: (A,) of atoms.
        owner: (A,) the number of the group of each class, -1 for none.
    """
    at: dict[tuple[str, str, tuple[int, int]], list[TracedCall]] = {}
    for call in found.calls:
        at.setdefault((call.module, call.method, call.place), []).append(call)
    modules: dict[str, SizedModule] = {}
    writable: dict[tuple[type, str, tuple[int, int], tuple[str, ...]], bool] = {}
    for (path, method, place), calls in at.items():
        seen = {tuple(_counted(dim, groups, classes, owner) for dim in call.dims) for call in calls}
        if len(seen) != 1:
            # One call is given other sizes at other times.
            continue
        (dims,) = seen
        kind = calls[0].kind
        if hasattr(kind, "_sizes"):  # It keeps them already.
            continue
        rest = [dim for dim, (length, _) in enumerate(dims) if length == _REST]
        if len(rest) > 1:
            continue
        sizes = tuple(None if length == _OWN else length for length, _ in dims)
        ways = SizedCall(module=path, method=method, digest="", place=place, sizes=sizes).ways
        key = kind, method, place, ways
        if {*ways} == {"own"}:
            continue
        if key not in writable:
            writable[key] = can_write(kind, method, place, ways)
        digest = digest_of(kind, method) if writable[key] else None
        if digest is None:
            continue
        module = modules.setdefault(path, SizedModule(kind))
        module.calls.append(SizedCall(module=path, method=method, digest=digest, place=place, sizes=sizes))
        for dim, (_, counted) in enumerate(dims):
            if counted is not None:
                g, per_unit = counted
                attribute = Attribute(module=path, name=size_name(place, dim), per_unit=per_unit)
                module.attributes.setdefault(groups[g].name, []).append(attribute)
    return modules


def _counted(
    dim: SizedDim, groups: Sequence[PruneGroup], classes: np.ndarray, owner: np.ndarray
) -> tuple[int, tuple[int, int] | None]:
    """A size, or where else it comes from, and the group that it counts, with what a unit counts; None for a fixed one."""
    known = [atoms is not None and bool((owner[classes[atoms]] >= 0).all()) for atoms in dim.sources]
    if not any(known):
        return _OWN, None
    if not all(known):
        # A factor beside units is a head's width, or the batch or a length: it is what the other sizes leave.
        return _REST, None
    if dim.atoms is None or (found := classes[dim.atoms])[:1].repeat(dim.length, 0).tolist() == found.tolist():
        return dim.length, None
    if (found != found[:, :1]).any():
        return _OWN, None
    g, *others = np.unique(owner[found]).tolist()
    if others or g < 0 or dim.length % groups[g].units:
        return _OWN, None
    return dim.length, (g, dim.length // groups[g].units)


def with_calls(groups: Iterable[PruneGroup], modules: Mapping[str, SizedModule]) -> tuple[PruneGroup, ...]:
    """The groups, which let some modules keep the sizes of their calls wherever units of them stand inside."""
    result = []
    for group in groups:
        tensors = {place.tensor for place in group.places}
        near = [
            (path, module)
            for path, module in modules.items()
            if group.name in module.attributes or any(is_inside(tensor, path) for tensor in tensors)
        ]
        calls = tuple(call for _, module in near for call in module.calls)
        attributes = tuple(a for _, module in near for a in module.attributes.get(group.name, ()))
        result.append(replace(group, calls=calls, attributes=(*group.attributes, *attributes)) if near else group)
    return tuple(result)
