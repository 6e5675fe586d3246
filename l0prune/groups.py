"""Prune groups: what is kept or removed together, and where it stands in the weights.

A group counts `units` (channels, heads, hidden units, blocks). Every place of a unit is a `Place`: indices along one
dimension of one tensor. Groups written by hand and groups found by tracing are the same thing.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import gcd
from typing import Any

import numpy as np

from l0prune.errors import GroupError, PlanError
from l0prune.support import LEFT, PRODUCT, conforms, is_inside, listed, size_name


class Role(StrEnum):
    """What a tensor does with the units that stand on it."""

    PRODUCES = "produces"
    """Makes the unit, or passes it on unit by unit: cut only."""
    CONSUMES = "consumes"
    """Reads the unit: scaled by the unit's gate in training, folded and cut at removal."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Place:
    """Where a group's units stand on one dimension of one parameter or buffer."""

    tensor: str
    """Dotted name in the model."""
    dim: int | None
    """The dimension; None when the whole tensor lives and dies with a group of one unit."""
    role: Role
    index: np.ndarray = field(repr=False)
    """(units, width) indices along `dim`: row u holds the places of unit u."""
    in_order: bool = field(init=False, repr=False)
    """Whether the units follow each other from index 0 on."""

    def __post_init__(self) -> None:
        index = np.asarray(self.index, dtype=np.int64)
        object.__setattr__(self, "index", index)
        plain = index.ndim == 2 and np.array_equal(index, consecutive(*index.shape))
        object.__setattr__(self, "in_order", plain)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Place":
        """Itself: it never changes."""
        return self

    @property
    def width(self) -> int:
        """Indices a unit takes along the dimension."""
        return self.index.shape[1]

    def to_json(self) -> dict[str, Any]:
        """JSON; consecutive indices as their offset and width alone."""
        units, width = self.index.shape
        offset = int(self.index[0, 0]) if self.index.size else 0
        plain = np.array_equal(self.index, consecutive(units, width, offset))
        index = {"offset": offset, "width": width} if plain else self.index.tolist()
        return {"tensor": self.tensor, "dim": self.dim, "role": str(self.role), "index": index}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], units: int) -> "Place":
        """The inverse of `to_json` for a group of `units` units."""
        index = data["index"]
        if isinstance(index, dict):
            index = consecutive(units, index["width"], index["offset"])
        return cls(tensor=data["tensor"], dim=data["dim"], role=Role(data["role"]), index=np.asarray(index))


@dataclass(frozen=True, kw_only=True)
class Norm:
    """A normalisation whose statistics mix the group's units: it must see the open ones only."""

    module: str
    """Dotted name of an nn.LayerNorm, nn.GroupNorm or nn.RMSNorm, or of another module that reduces its channels."""
    channel_dim: int = -1
    """The dimension of its input on which the units stand."""
    along: str | None = None
    """For a module without a weight: "tensor:dim", where the units stand as they do on its channels."""


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """A number on a module that counts the group's units, mended after a cut (`num_heads`, say)."""

    module: str
    name: str
    per_unit: int = 1


_SIZE = re.compile(rf"\d+(\{PRODUCT}\d+)+|{LEFT}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class SizedCall:
    """A call whose sizes a module's method derives, `x.reshape(B, N, C)` say: with a cut the module keeps them."""

    module: str
    method: str
    digest: str
    """Of the method's source, as `support.digest_of` gives it."""
    place: tuple[int, int]
    """Where the call ends, as `support.sized_call_of` gives it."""
    sizes: tuple[int | str | None, ...]
    """In the dense model; None where the method's own expression stays, -1 for what the other sizes leave, "2*3" for
    the product of the operand's dimensions 2 and 3, "left" for what the other parts of a split leave of its length."""

    @property
    def ways(self) -> tuple[str, ...]:
        """Where each size comes from, as `support.class_with_sizes` takes it."""
        named = {None: "own", -1: "rest"}
        return tuple(size if isinstance(size, str) else named.get(size, "kept") for size in self.sizes)

    @property
    def attributes(self) -> dict[str, int]:
        """What the module keeps, by the names of attributes, in the dense model."""
        kept = [(dim, size) for dim, size in enumerate(self.sizes) if isinstance(size, int) and size != -1]
        return {size_name(self.place, dim): size for dim, size in kept}

    def to_json(self) -> dict[str, Any]:
        """JSON."""
        return {**vars(self), "place": list(self.place), "sizes": list(self.sizes)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "SizedCall":
        """The inverse of `to_json`."""
        line, column = data["place"]
        if odd := [size for size in data["sizes"] if isinstance(size, str) and not _SIZE.fullmatch(size)]:
            raise ValueError(f"no size: {odd[0]}")
        return cls(**{**data, "place": (line, column), "sizes": tuple(data["sizes"])})


SKIPS = tuple(f"{form}{count}" for form in ("zero", "zeros", "input") for count in ("", " 1", " 2", " 3"))
"""What stands in the place of a module that a residual block does not need any more: it returns a zero that broadcasts,
zeros as its first tensor, or that tensor; where there is a number, in a tuple of so many with None for all others."""
RETURNS = ("tensor", "pair", *SKIPS)


@dataclass(frozen=True, kw_only=True)
class Bypass:
    """The residual block that contributes nothing once the group is empty."""

    module: str
    returns: str = "tensor"
    """What the block's forward returns: its output ("tensor"), or its output and a second value that may be None
    ("pair"); a zero takes the output's place. In a network that was not written for this: one of `SKIPS`."""

    def __post_init__(self) -> None:
        if self.returns not in RETURNS:
            raise GroupError("unknown form of a bypass", where=self.module, got=self.returns, expected=listed(RETURNS))


EXPERT = "expert"
"""The kind of groups whose units are whole experts, each with its row of the router."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PruneGroup:
    """Units that are kept or removed together wherever they stand."""

    name: str
    kind: str
    """What a unit is, in the field's words: "conv", "head", "ffn", ..."""
    units: int
    places: tuple[Place, ...]
    norms: tuple[Norm, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    calls: tuple[SizedCall, ...] = ()
    """Calls in the modules around the units that cannot derive their sizes once units are gone."""
    alive_with: tuple[str, ...] = ()
    """Tensors that count, and act, only while any unit is open: the output bias of a residual block."""
    bypass: Bypass | None = None
    """Present exactly when the group may be emptied."""
    goes_along: tuple[Bypass, ...] = ()
    """Further modules of the residual block: they go where the one of `bypass` goes."""
    fewest: int = 1
    """How many units have to stay where nothing bypasses the group: a router picks so many experts."""

    def __post_init__(self) -> None:
        for place in self.places:
            if place.index.ndim != 2 or len(place.index) != self.units or place.index.size == 0:
                raise GroupError(
                    "index map does not fit the group",
                    where=f"{self.name}, {place.tensor}",
                    got=f"shape {place.index.shape}",
                    expected=f"({self.units}, width)",
                )
            if place.dim is None and self.units != 1:
                raise GroupError(
                    "only a group of one unit can own a whole tensor", where=f"{self.name}, {place.tensor}"
                )
        if not any(place.role is Role.CONSUMES for place in self.places):
            raise GroupError("group has no consumer to gate", where=self.name)
        if self.goes_along and self.bypass is None:
            raise GroupError("modules go along with no bypass", where=self.name)
        if not 1 <= self.fewest <= max(self.units, 1):
            expected = f"1 to {self.units}"
            raise GroupError("not a number of units that can stay", where=self.name, got=self.fewest, expected=expected)

    def __deepcopy__(self, memo: dict[int, Any]) -> "PruneGroup":
        """Itself: copies of gated models share their groups, whose index maps never change."""
        return self

    @property
    def least_units(self) -> int:
        """The fewest units that removal can leave: 0 for a block that can be bypassed, else `fewest`."""
        return 0 if self.bypass else self.fewest

    @property
    def bypasses(self) -> tuple[Bypass, ...]:
        """All modules that go once the group is empty; none where it may not be emptied."""
        return (self.bypass, *self.goes_along) if self.bypass else ()

    def stands_inside(self, modules: Iterable[str]) -> bool:
        """Whether all that the group stands on is in some modules: it goes with them."""
        paths = tuple(modules)
        return bool(paths) and all(is_inside(place.tensor, *paths) for place in self.places)

    @property
    def owns_tensors(self) -> bool:
        """Whether its one unit is a block with all of its tensors, rather than a part of their width."""
        return any(place.dim is None for place in self.places)

    @property
    def channels(self) -> int:
        """How many channels a unit has where most of its places stand."""
        widths = Counter(place.width for place in self.places)
        # What reads the units flattened may see more channels of each than all others do.
        return min(widths, key=lambda width: (-widths[width], width))

    def step(self, round_to: int) -> int:
        """The fewest units whose channels are a multiple of `round_to`; all of them where there are fewer."""
        if self.kind == EXPERT:
            # They are no width of any product.
            return 1
        return min(self.units, round_to // gcd(round_to, self.channels))

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads back."""
        return {
            "name": self.name,
            "kind": self.kind,
            "units": self.units,
            "places": [place.to_json() for place in self.places],
            "norms": [{k: v for k, v in vars(norm).items() if v is not None} for norm in self.norms],
            "attributes": [vars(attribute) for attribute in self.attributes],
            "alive_with": list(self.alive_with),
            "bypass": vars(self.bypass) if self.bypass else None,
            # Files of groups without any are as they always were.
            **({"calls": [call.to_json() for call in self.calls]} if self.calls else {}),
            **({"goes_along": [vars(bypass) for bypass in self.goes_along]} if self.goes_along else {}),
            **({"fewest": self.fewest} if self.fewest > 1 else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]) -> "PruneGroup":
        """Read `to_json`'s object.

        Args:
            data: The object.
            shapes: Of every tensor of the model, by name.

        Raises:
            PlanError: A key is missing or has the wrong type, the group contradicts itself or does not fit the shapes.
        """
        more = {key: form for key, form in _OPTIONAL_SCHEMA.items() if key in data}
        if not conforms(data, {**_GROUP_SCHEMA, **more}):
            raise PlanError("malformed prune group", where=data.get("name", "?") if isinstance(data, Mapping) else "?")
        for place in data["places"]:
            _check_extent(place, data, shapes)
        try:
            return cls(
                name=data["name"],
                kind=data["kind"],
                units=data["units"],
                places=tuple(Place.from_json(place, data["units"]) for place in data["places"]),
                norms=tuple(Norm(**norm) for norm in data["norms"]),
                attributes=tuple(Attribute(**attribute) for attribute in data["attributes"]),
                calls=tuple(map(SizedCall.from_json, data.get("calls", ()))),
                alive_with=tuple(data["alive_with"]),
                bypass=Bypass(**data["bypass"]) if data["bypass"] else None,
                goes_along=tuple(Bypass(**bypass) for bypass in data.get("goes_along", ())),
                fewest=data.get("fewest", 1),
            )
        except (TypeError, ValueError, GroupError) as error:
            raise PlanError("malformed prune group", where=data["name"], got=error) from error


def _check_extent(place: Mapping[str, Any], group: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]) -> None:
    """Raise a `PlanError` where consecutive indices, which take no room in a file, would not fit their tensor."""
    shape, dim, index = shapes.get(place["tensor"]), place["dim"], place["index"]
    where = f"{group['name']}, {place['tensor']}"
    if shape is None or (dim is not None and not 0 <= dim < len(shape)):
        got = "no such tensor" if shape is None else f"dimension {dim}"
        raise PlanError("units lie outside the tensor", where=where, got=got)
    extent = 1 if dim is None else shape[dim]
    if isinstance(index, dict) and not index["offset"] + group["units"] * index["width"] <= extent:
        got = f"{group['units']} units of width {index['width']} from {index['offset']} on"
        raise PlanError("units lie outside the tensor", where=where, got=got, expected=f"at most {extent}")


_INDEX_SCHEMA = ({"offset": int, "width": int}, [[int]])
_PLACE_SCHEMA = {"tensor": str, "dim": (int, None), "role": str, "index": _INDEX_SCHEMA}
_CALL_SCHEMA = {"module": str, "method": str, "digest": str, "place": [int], "sizes": [(int, str, None)]}
_BYPASS_SCHEMA = {"module": str, "returns": RETURNS}
_GROUP_SCHEMA = {
    "name": str,
    "kind": str,
    "units": int,
    "places": [_PLACE_SCHEMA],
    "norms": [({"module": str, "channel_dim": int}, {"module": str, "channel_dim": int, "along": str})],
    "attributes": [{"module": str, "name": str, "per_unit": int}],
    "alive_with": [str],
    "bypass": (None, _BYPASS_SCHEMA),
}
_OPTIONAL_SCHEMA = {"calls": [_CALL_SCHEMA], "goes_along": [_BYPASS_SCHEMA], "fewest": int}


def consecutive(units: int, width: int = 1, offset: int = 0) -> np.ndarray:
    """The index map (units, width) in which unit u takes `width` indices from `offset + u * width` on."""
    return offset + np.arange(units * width, dtype=np.int64).reshape(units, width)


def check_groups(groups: Sequence[PruneGroup], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check that groups fit a model.

    Args:
        groups: The groups.
        shapes: Shape of every parameter and buffer of the model, by name.

    Raises:
        GroupError: A name is used twice, a tensor does not exist, an index is out of range or claimed twice.
    """
    names: set[str] = set()
    claimed: dict[tuple[str, int], set[int]] = {}
    for group in groups:
        if group.name in names:
            raise GroupError("two groups have one name", where=group.name)
        names.add(group.name)
        for place in group.places:
            shape = shapes.get(place.tensor)
            if shape is None:
                raise GroupError("no such tensor in the model", where=f"{group.name}, {place.tensor}")
            if place.dim is None:
                continue
            if not 0 <= place.dim < len(shape) or place.index.min() < 0 or place.index.max() >= shape[place.dim]:
                raise GroupError(
                    "units lie outside the tensor",
                    where=f"{group.name}, {place.tensor}",
                    got=f"indices up to {int(place.index.max())} on dimension {place.dim}",
                    expected=f"within shape {tuple(shape)}",
                )
            indices = set(place.index.ravel().tolist())
            taken = claimed.setdefault((place.tensor, place.dim), set())
            if taken & indices or len(indices) != place.index.size:
                raise GroupError("an index belongs to two units", where=f"{group.name}, {place.tensor}")
            taken |= indices
        for tensor in group.alive_with:
            if tensor not in shapes:
                raise GroupError("no such tensor in the model", where=f"{group.name}, {tensor}")
