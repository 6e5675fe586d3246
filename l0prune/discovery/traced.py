"""What a forward pass ties together, as `tracer` finds it.

Legend: A atoms; atom 0 stands for what can never be cut.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

Atoms = np.ndarray
"""(n,) int64: the atom of each index along a dimension."""


OUTPUT = "part of the model's output"
UNRANKED = "is picked by numbers that no ranking of a router gives"
"""Why experts stay: their numbers mean something else, too."""


class Block(NamedTuple):
    """Atoms that depend on one dimension of a tensor, or jointly on several that a reshape has made of one."""

    dims: tuple[int, ...]
    atoms: np.ndarray
    """One axis for each of `dims`, in the order in which they stood before the reshape."""


@dataclass(frozen=True)
class Facts:
    """What is known of one tensor."""

    blocks: tuple[Block, ...] = ()
    """Each dimension stands in at most one; a dimension in none is fixed."""
    constant: bool = False
    """Whether it is made of parameters and buffers alone."""


class Cost(NamedTuple):
    """Multiply-accumulates of one operator: `factor` times the lengths of `extents`."""

    module: str
    factor: int
    extents: tuple[Atoms, ...]


class Ranking(NamedTuple):
    """Scores of units from which a router picks the highest."""

    atoms: Atoms
    picked: int
    along: str
    """"tensor:dim" of the router's weight that makes them."""


class Allocation(NamedTuple):
    """Memory of one tensor: `factor` bytes times the lengths of `extents`, from one operator to another."""

    module: str
    """Path of the module whose operator made it; "" for what the model is given."""
    factor: int
    extents: tuple[Atoms, ...]
    born: int
    """Number of the operator that made it, which counts from 1; 0 for what the model is given."""
    died: int | None
    """Number of the first operator that runs without it; None where it is left at the end."""


class NormCall(NamedTuple):
    """A normalisation across channels that carry atoms."""

    module: str
    channel_dim: int
    atoms: Atoms


class Reading(NamedTuple):
    """A reshape or split in a module's forward: an attribute may hold the length of that dimension."""

    module: str
    atoms: Atoms


class SizedDim(NamedTuple):
    """One of the sizes that a call is given."""

    length: int
    atoms: Atoms | None
    """(length, n) of the dimension that it makes, which may depend on n places of others too; None for a fixed one."""
    sources: tuple[Atoms | None, ...]
    """What the dimensions carry that it is a factor or a product of; none where that is not known."""
    whole: tuple[int, ...] = ()
    """The operand's dimensions that it is the product of, if it is one of whole dimensions."""


class TracedCall(NamedTuple):
    """A call with sizes in a method of the module that runs."""

    module: str
    kind: type
    method: str
    place: tuple[int, int]
    """As `sized_call_of` gives it."""
    dims: tuple[SizedDim, ...]
    is_split: bool = False
    """Whether the sizes are those of parts that follow each other."""
    is_slice: bool = False
    """Whether they are the bounds of a slice."""


@dataclass
class Trace:
    """What a forward pass ties together."""

    leaves: dict[str, list[Atoms]]
    """Atoms along each dimension of each parameter and buffer, by canonical name."""
    size: int
    """Number of atoms, with atom 0."""
    same: list[tuple[Atoms, Atoms]] = field(default_factory=list)
    pins: list[tuple[Atoms, str]] = field(default_factory=list)
    consumed: list[Atoms] = field(default_factory=list)
    """Atoms of weight dimensions that are contracted with activations."""
    terms: list[tuple[Atoms, Atoms]] = field(default_factory=list)
    """Atoms of a computed weight, and of a tensor that is a term of it, where both are of one class."""
    heads: list[Atoms] = field(default_factory=list)
    """Atoms that stand for a whole head of attention."""
    costs: list[Cost] = field(default_factory=list)
    allocations: list[Allocation] = field(default_factory=list)
    """What is in memory during the pass in evaluation mode, beside weights; noted where `memory` was asked for."""
    norms: list[NormCall] = field(default_factory=list)
    rankings: list[Ranking] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    calls: list[TracedCall] = field(default_factory=list)
    """Calls that are given sizes."""
    used: set[str] = field(default_factory=set)
    """Parameters and buffers that an operator has read."""
    notes: list[str] = field(default_factory=list)
    """What could not be looked at."""
    _classes: tuple[tuple[int, int], np.ndarray] | None = field(default=None, repr=False, compare=False)
    """How much was known, and what `classes` made of it."""

    def classes(self) -> np.ndarray:
        """(A,) the smallest atom that each atom lives and dies with; not to be written to."""
        known = len(self.same), self.size
        if self._classes is None or self._classes[0] != known:
            self._classes = known, self._united()
        return self._classes[1]

    def _united(self) -> np.ndarray:
        edges = [(np.ravel(a), np.ravel(b)) for a, b in self.same]
        parent = np.arange(self.size)
        if not edges:
            return parent
        one, other = (np.concatenate(side) for side in zip(*edges, strict=True))
        while True:
            low = np.minimum(parent[one], parent[other])
            before = parent.copy()
            # Hook the larger root below the smaller, then halve every path.
            np.minimum.at(parent, parent[one], low)
            np.minimum.at(parent, parent[other], low)
            parent = parent[parent]
            if np.array_equal(parent, before):
                return parent

    def reasons(self, classes: np.ndarray) -> dict[int, str]:
        """Why a class can never be cut, by class."""
        found: dict[int, str] = {}
        # That something is the model's output says more than what else becomes of it.
        for atoms, reason in sorted(self.pins, key=lambda pin: not pin[1].startswith(OUTPUT)):
            for atom in np.unique(classes[atoms]):
                found.setdefault(int(atom), reason)
        return found
