"""Where a forward pass adds what a branch makes of a value to this value, or to one that it has been added to before.

Legend: numbers are those of values in a `Recording`.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from l0prune.discovery.recording import LEAVES, Recording, Ref

_SAME = frozenset("alias detach clone contiguous _to_copy to dropout view _unsafe_view reshape _reshape_alias".split())
"""Operators whose result holds what their first argument does, in the same order."""
_NEVER_NEGATIVE = frozenset("relu relu_ sigmoid sigmoid_ hardtanh hardtanh_ exp square".split())
_KEEP_SIGNS = frozenset(
    "max_pool2d_with_indices max_pool1d_with_indices max_pool3d_with_indices avg_pool2d _adaptive_avg_pool2d".split()
)


@dataclass(frozen=True)
class Residual:
    """An addition whose one operand comes from the other, or from what that was before earlier additions."""

    sum: int
    trunk: int
    branch: int
    start: int
    """The value that the branch comes from."""


def residuals(found: Recording) -> list[Residual]:
    """All residual additions, in the order of the forward pass."""
    here: dict[int, Residual] = {}
    for number, value in enumerate(found.values):
        if value.operator not in ("add", "add_") or not found.alive[number] or len(value.arguments) < 2:
            continue
        first, second = value.arguments[:2]
        if not (isinstance(first, Ref) and isinstance(second, Ref)) or first == second or len(value.shape) < 2:
            continue
        one, other = first.number, second.number
        if not found.values[one].shape == found.values[other].shape == value.shape:
            continue
        for trunk, branch in ((one, other), (other, one)):
            start = _start(found, here, trunk, branch)
            if start is not None:
                here[number] = Residual(number, trunk, branch, start)
                break
    return list(here.values())


def _start(found: Recording, known: Mapping[int, Residual], trunk: int, branch: int) -> int | None:
    """The latest value that a trunk was, and that a branch comes from."""
    earlier, value = [], trunk
    while True:
        earlier.append(value)
        if value in known:
            value = known[value].trunk
        elif found.values[value].operator in _SAME and found.values[value].inputs:
            value = found.values[value].inputs[0]
        else:
            break
    wanted, least = set(earlier), min(earlier)
    if wanted.isdisjoint(range(least, branch)):
        return None
    seen, pending, latest = {branch}, [branch], -1
    while pending:
        for given in found.values[pending.pop()].inputs:
            if given >= least and given not in seen:
                seen.add(given)
                if given in wanted:
                    latest = max(latest, given)
                else:
                    pending.append(given)
    # A branch that holds the trunk's own latest sum is what the sum is made of, as of `x + x`.
    return latest if latest >= 0 and branch not in wanted else None


def region(found: Recording, ends: Iterable[Residual]) -> set[int]:
    """Values that serve nothing but the branches of some additions, parameters left out."""
    sums: dict[int, set[int]] = {}
    for residual in ends:
        sums.setdefault(residual.branch, set()).add(residual.sum)
    inside: set[int] = set()
    pending = [-branch for branch in sums]
    heapq.heapify(pending)
    seen = set(sums)
    while pending:
        number = -heapq.heappop(pending)
        value = found.values[number]
        if value.operator in LEAVES or number in found.outputs:
            continue
        # Values come in the order of the pass: all that is made of this one has been looked at.
        if all(user in inside or user in sums.get(number, ()) for user in found.users[number]):
            inside.add(number)
            for given in value.inputs:
                if given not in seen:
                    seen.add(given)
                    heapq.heappush(pending, -given)
    return inside


def descended(found: Recording, inside: set[int], starts: Sequence[int]) -> set[int]:
    """Those of some values that are made of `starts`."""
    reached = set(starts)
    for number in range(min(starts) + 1, max(inside, default=0) + 1):
        if not reached.isdisjoint(found.values[number].inputs):
            reached.add(number)
    return reached & inside


def passed(found: Recording, known: Mapping[int, Residual], call: int) -> list[Residual] | None:
    """The additions without whose branches a call returns what it is given; None where it would not.

    Args:
        found: The forward pass.
        known: Residual additions, by their sums.
        call: Number of the call.
    """
    this = found.calls[call]
    if not found.returns_one(this) or this.made is None or this.given is None:
        return None
    value, ends = this.made, []
    while value != this.given:
        operator, inputs = found.values[value].operator, found.values[value].inputs
        if value in known:
            ends.append(known[value])
            value = known[value].trunk
        elif (operator in _SAME or (operator in ("relu", "relu_") and _never_negative(found, this.given))) and inputs:
            value = inputs[0]
        else:
            return None
        if value < 0 or (value != this.given and value < this.first):
            return None
    same = found.values[this.made].shape == found.values[this.given].shape
    return ends if ends and same else None


def _never_negative(found: Recording, number: int) -> bool:
    while found.values[number].operator in _KEEP_SIGNS | _SAME and found.values[number].inputs:
        number = found.values[number].inputs[0]
    return found.values[number].operator in _NEVER_NEGATIVE


def closed_off(found: Recording, call: int) -> bool:
    """Whether nothing that a call makes is used outside it but what it returns."""
    this = found.calls[call]
    return all(
        number == this.made
        or not found.alive[number]
        or found.values[number].operator in LEAVES
        or (number not in found.outputs and all(user < this.last for user in found.users[number]))
        for number in range(this.first, this.last)
    )
