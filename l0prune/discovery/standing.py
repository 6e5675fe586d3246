"""Where units stand in the weights.

Legend: P places of indices, counted over all dimensions of all parameters and buffers.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from l0prune.discovery.traced import Trace
from l0prune.groups import Role

Spot = tuple[str, int, Role]
"""A dimension of a tensor, and what the tensor does with the units there."""


class Standing:
    """Where each class of atoms stands: the indices on each spot.

    Args:
        found: What a forward pass ties together.
        classes: (A,) of its atoms.
    """

    def __init__(self, found: Trace, classes: np.ndarray) -> None:
        dims = [(tensor, dim, atoms) for tensor, leaf in found.leaves.items() for dim, atoms in enumerate(leaf)]
        self._spots: list[Spot] = [
            (tensor, dim, role) for tensor, dim, _ in dims for role in (Role.PRODUCES, Role.CONSUMES)
        ]
        lengths = [len(atoms) for _, _, atoms in dims]
        atoms = np.concatenate([np.zeros(0, int), *(atoms for *_, atoms in dims)])
        spots = 2 * np.repeat(np.arange(len(dims)), lengths) + _consumed(found, classes)[atoms]
        order = np.lexsort((spots, classes[atoms]))
        self._indices = np.concatenate([np.zeros(0, int), *map(np.arange, lengths)])[order]
        sorted_classes, spots = classes[atoms][order], spots[order]
        # A run is one class on one spot; its indices ascend.
        begins = np.flatnonzero(_changes(sorted_classes) | _changes(spots))
        self._runs = np.stack([spots[begins], np.diff(begins, append=len(order))], axis=1)
        self._begins = begins
        first_runs = np.flatnonzero(_changes(sorted_classes[begins]))
        self._first_run = dict(zip(sorted_classes[begins][first_runs].tolist(), first_runs.tolist(), strict=True))
        # No atoms have no runs.
        self._last_run = np.append(first_runs[1:], len(begins)).tolist()[: len(first_runs)]

    def alike(self) -> Iterator[tuple[tuple[tuple[Spot, int], ...], list[int]]]:
        """Classes that stand alike: on which spots, with how many indices each; and the classes, ascending."""
        found: dict[bytes, list[int]] = {}
        for (atom, first), last in zip(self._first_run.items(), self._last_run, strict=True):
            found.setdefault(self._runs[first:last].tobytes(), []).append(atom)
        for runs, atoms in found.items():
            pairs = np.frombuffer(runs, dtype=self._runs.dtype).reshape(-1, 2).tolist()
            yield tuple((self._spots[spot], width) for spot, width in pairs), atoms

    def indices(self, atoms: Sequence[int], number: int, width: int) -> np.ndarray:
        """(units, width) of classes that stand alike, on one of their spots.

        Args:
            atoms: The classes.
            number: Of the spot, in the order of `alike`.
            width: The indices of each class there.
        """
        begins = self._begins[[self._first_run[atom] + number for atom in atoms]]
        return self._indices[begins[:, None] + np.arange(width)]


def _changes(values: np.ndarray) -> np.ndarray:
    """Whether each value is another one than that before it."""
    return np.append(True, values[1:] != values[:-1])[: len(values)]


def _consumed(found: Trace, classes: np.ndarray) -> np.ndarray:
    """(A,) whether a weight reads the unit of each atom there."""
    consumed = np.zeros(found.size, dtype=bool)
    for atoms in found.consumed:
        consumed[atoms] = True
    # From the last sum to the first: a term may be a sum itself.
    for whole, term in reversed(found.terms):
        same = consumed[whole] & (classes[whole] == classes[term])
        consumed[term[same]] = True
    return consumed
