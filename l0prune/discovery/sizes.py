"""Which sizes of a method's calls a cut makes wrong, and which units they count."""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from l0prune.discovery.traced import SizedDim, Trace, TracedCall
from l0prune.groups import Attribute, PruneGroup, SizedCall
from l0prune.support import LEFT, PRODUCT, can_write, digest_of, holders_of, names_sizes, size_name

_OWN, _REST = 0, -1
Sizes = tuple[int | str | None, ...]


class SizedModule:
    """The calls of one module with sizes that it could keep, and the attributes that each group mends after a cut."""

    def __init__(self, kind: type) -> None:
        self.kind = kind
        self.calls: list[SizedCall] = []
        self.attributes: dict[str, list[Attribute]] = {}
        """By group."""


class _CountedCall(NamedTuple):
    """A call with sizes, and what they count."""

    kind: type
    """Of the module."""
    call: SizedCall
    """Without its digest."""
    units: dict[int, tuple[str, int]]
    """By the number of a size, the group whose units it counts and what a unit counts."""


class SizedModules(Mapping[str, SizedModule]):
    """By path, modules whose methods are given sizes that units of groups stand behind.

    Whether a method can take its sizes from the module shows in its source. The source is read when somebody looks
    inside: most networks are cut without.

    Args:
        counted: Calls with sizes, some of which could come from the module.
    """

    def __init__(self, counted: Iterable[_CountedCall] = ()) -> None:
        self._counted = tuple(counted)

    @property
    def may_hold_any(self) -> bool:
        """Whether there may be modules inside, as far as that shows without a look at sources."""
        return bool(self._counted)

    @functools.cached_property
    def _modules(self) -> dict[str, SizedModule]:
        modules: dict[str, SizedModule] = {}
        digests: dict[tuple[type, str, tuple[int, int], tuple[str, ...]], str | None] = {}
        for kind, call, units in self._counted:
            key = kind, call.method, call.place, call.ways
            if key not in digests:
                writable = can_write(kind, call.method, call.place, call.ways)
                digests[key] = digest_of(kind, call.method) if writable else None
            if (digest := digests[key]) is None:
                continue
            module = modules.setdefault(call.module, SizedModule(kind))
            module.calls.append(replace(call, digest=digest))
            for dim, (group, per_unit) in units.items():
                attribute = Attribute(module=call.module, name=size_name(call.place, dim), per_unit=per_unit)
                module.attributes.setdefault(group, []).append(attribute)
        return modules

    def __getitem__(self, path: str) -> SizedModule:
        return self._modules[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


def tie_split(found: Trace) -> None:
    """Tie units that a view lays out along several dimensions, (3, heads, width) say: what is left has to be as even.

    Those along the dimension that leaves most are kept apart.
    """
    while ties := _uneven(found, found.classes()):
        found.same += ties


def _uneven(found: Trace, classes: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    ties = []
    for call in found.calls:
        joint = [dim.atoms for dim in call.dims if dim.atoms is not None and dim.atoms.shape[1] > 1]
        varying = [atoms for atoms in joint if (classes[atoms] != classes[atoms[:1]]).any()]
        if len(varying) > 1 and len({atoms.size for atoms in varying}) == 1:
            best = max(varying, key=lambda atoms: _left(classes[atoms]))
            if (classes[best] != classes[best[:, :1]]).any():
                ties.append((best, np.broadcast_to(best[:, :1], best.shape)))
    return ties


def _left(table: np.ndarray) -> int:
    """How many classes there are once all in a row (length, n) are one: at most as many as rows."""
    return len({frozenset(row) for row in table.tolist()})


class _Counting:
    """What sizes count.

    Args:
        groups: The groups.
        classes: (A,) of atoms.
        owner: (A,) the number of the group of each class, -1 for none.
        features: (A,) the classes that layers make; others may be places in a table, as of positions.
    """

    def __init__(
        self, groups: Sequence[PruneGroup], classes: np.ndarray, owner: np.ndarray, features: np.ndarray
    ) -> None:
        self.groups, self.classes, self.owner = groups, classes, owner
        self._known = (owner >= 0) | features

    def __call__(self, dim: SizedDim) -> tuple[int, tuple[int, int] | None]:
        """A size, or where else it comes from; and the group that it counts with what a unit counts, if any."""
        known = [atoms is not None and bool(self._known[self.classes[atoms]].all()) for atoms in dim.sources]
        if not any(known):
            return _OWN, None
        if not all(known):
            # A factor beside units is a head's width, or the batch or a length: it is what the other sizes leave.
            return _REST, None
        found = None if dim.atoms is None else self.classes[dim.atoms]
        if dim.atoms is None or found is None or (found == found[:1]).all():
            # A dimension in which units stand several times has been put together with the batch or a length.
            return (dim.length if all(map(_distinct, dim.sources)) else _OWN), None
        if not _distinct(dim.atoms[:, 0]):
            return _REST, None
        return self._of_units(dim.length, found)

    def _of_units(self, length: int, found: np.ndarray) -> tuple[int, tuple[int, int] | None]:
        """The same for classes (length, n)."""
        owners = np.unique(self.owner[found]).tolist()
        if owners == [-1]:
            return length, None
        counts = np.unique(found[:, 0], return_counts=True)[1]
        # A part of a dimension may hold some of the units alone, or some of them more often.
        whole = len(owners) == 1 and len(counts) == self.groups[owners[0]].units and (counts == counts[0]).all()
        if not whole or (found != found[:, :1]).any():
            return _OWN, None
        return length, (owners[0], length // self.groups[owners[0]].units)


def _distinct(atoms: np.ndarray | None) -> bool:
    return atoms is not None and len(np.unique(atoms)) == len(atoms)


def sized_modules(
    groups: Sequence[PruneGroup], found: Trace, classes: np.ndarray, owner: np.ndarray, features: np.ndarray
) -> SizedModules:
    """By path, modules whose methods are given sizes that units of groups stand behind.

    Args:
        groups: The groups.
        found: What the forward pass ties together.
        classes: (A,) of atoms.
        owner: (A,) the number of the group of each class, -1 for none.
        features: (A,) the classes that layers make.
    """
    at: dict[tuple[str, str, tuple[int, int]], list[TracedCall]] = {}
    for call in found.calls:
        if call.is_slice or names_sizes(call.kind, call.method):
            at.setdefault((call.module, call.method, call.place), []).append(call)
    counted, result = _Counting(groups, classes, owner, features), list[_CountedCall]()
    for (path, method, place), calls in at.items():
        seen = {tuple(map(counted, call.dims)) for call in calls}
        if len(seen) != 1:
            # One call is given other sizes at other times.
            sizes = _where_they_differ(seen, LEFT if all(call.is_split for call in calls) else _REST)
            dims = tuple((_OWN, None) for _ in sizes)
        else:
            (dims,) = seen
            rests = sum(length == _REST for length, _ in dims)
            wholes = [{call.dims[dim].whole for call in calls} for dim in range(len(dims))]
            sizes = tuple(
                None if n == _OWN else _product(whole) or (n if rests == 1 else None) if n == _REST else n
                for (n, _), whole in zip(dims, wholes, strict=True)
            )
        call = SizedCall(module=path, method=method, digest="", place=place, sizes=sizes)
        if {*call.ways} != {"own"}:
            units = {dim: (groups[u[0]].name, u[1]) for dim, (_, u) in enumerate(dims) if u is not None}
            result.append(_CountedCall(calls[0].kind, call, units))
    return SizedModules(result)


def _product(wholes: set[tuple[int, ...]]) -> str | None:
    """The product of the operand's dimensions that a size is at all times, as `SizedCall.sizes` has it."""
    dims = next(iter(wholes))
    return PRODUCT.join(map(str, dims)) if len(wholes) == 1 and len(dims) > 1 else None


def _where_they_differ(seen: Iterable[tuple[tuple[int, tuple[int, int] | None], ...]], what: int | str) -> Sizes:
    """Sizes of which one is another at other times: it is what the method's own sizes leave.

    Args:
        seen: What was counted each time.
        what: How that one is called.
    """
    seen = list(seen)
    if len(set(map(len, seen))) != 1:
        return ()
    differ = [len(set(sizes)) > 1 for sizes in zip(*seen, strict=True)]
    fixed = all(units is None for dims in seen for (_, units), other in zip(dims, differ, strict=True) if not other)
    return tuple(what if other else None for other in differ) if fixed and sum(differ) == 1 else ()


def with_calls(groups: Iterable[PruneGroup], modules: Mapping[str, SizedModule]) -> tuple[PruneGroup, ...]:
    """The groups, which let some modules keep the sizes of their calls wherever units of them stand inside."""
    near, result = _Near(modules), []
    for group in groups:
        if those := near(group):
            calls = tuple(call for module in those for call in module.calls)
            attributes = tuple(a for module in those for a in module.attributes.get(group.name, ()))
            group = replace(group, calls=calls, attributes=(*group.attributes, *attributes))
        result.append(group)
    return tuple(result)


def classes_around(groups: Iterable[PruneGroup], modules: Mapping[str, SizedModule]) -> set[type]:
    """The classes of the modules that could keep sizes and that units of some groups stand inside."""
    near = _Near(modules)
    return {module.kind for group in groups for module in near(group)}


class _Near:
    """Which of some modules units of a group stand inside, or are counted by.

    Args:
        modules: By path.
    """

    def __init__(self, modules: Mapping[str, SizedModule]) -> None:
        self._modules = modules
        self._order = {path: number for number, path in enumerate(modules)}
        self._counting: dict[str, list[str]] = {}
        for path, module in modules.items():
            for name in module.attributes:
                self._counting.setdefault(name, []).append(path)

    def __call__(self, group: PruneGroup) -> list[SizedModule]:
        """The modules, in their order."""
        around = {path for place in group.places for path in holders_of(place.tensor) if path in self._order}
        around.update(self._counting.get(group.name, ()))
        return [self._modules[path] for path in sorted(around, key=self._order.__getitem__)]
