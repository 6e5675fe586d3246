"""Who among several is to blame for what they do together."""

import re
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from l0prune.groups import PruneGroup

T = TypeVar("T")

_ENOUGH = 4
"""How many of one kind are found guilty, with none accepted, until the others of this kind are not tried."""


def guilty(
    suspects: Sequence[T], objection: Callable[[list[T]], str], kind: Callable[[T], Hashable] | None = None
) -> list[tuple[T, str]]:
    """Those that cannot be accepted beside the others, each with the reason against it.

    Halves are tried beside what is accepted so far, until single ones are left: the accepted ones are right together.

    Args:
        suspects: All of them; those that come first are accepted first.
        objection: Tries some together; what is wrong with them, or nothing.
        kind: What those have in common that will fail alike, as layers of a network that differ by their number alone.
            Once several of a kind have failed and none has been accepted, the others are refused for the last reason;
            a network whose layers all fail would take as many trials as it has layers. None: each is tried.
    """
    accepted: list[T] = []
    found: list[tuple[T, str]] = []
    failed: Counter[Hashable] = Counter()
    right: set[Hashable] = set()
    last: dict[Hashable, str] = {}
    pending = [list(suspects)] if suspects else []
    while pending:
        chunk = pending.pop()
        if kind is not None:
            hopeless = [failed[kind(one)] >= _ENOUGH and kind(one) not in right for one in chunk]
            found += [(one, last[kind(one)]) for one, is_hopeless in zip(chunk, hopeless, strict=True) if is_hopeless]
            chunk = [one for one, is_hopeless in zip(chunk, hopeless, strict=True) if not is_hopeless]
            if not chunk:
                continue
        reason = objection([*accepted, *chunk])
        if not reason:
            accepted += chunk
            right.update(map(kind, chunk) if kind is not None else ())
        elif len(chunk) == 1:
            found.append((chunk[0], reason))
            if kind is not None:
                failed[kind(chunk[0])] += 1
                last[kind(chunk[0])] = reason
        else:
            half = len(chunk) // 2
            pending += [chunk[half:], chunk[:half]]
    return found


def kind_of(group: PruneGroup) -> Hashable:
    """What groups have in common that stand in layers which differ by their number alone."""
    places = tuple((re.sub(r"\d+", "#", place.tensor), place.dim, place.role, place.width) for place in group.places)
    return re.sub(r"\d+", "#", group.name), group.kind, group.units, places if len(places) < 16 else len(places)
