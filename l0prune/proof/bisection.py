"""Who among several is to blame for what they do together."""

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def guilty(suspects: Sequence[T], objection: Callable[[list[T]], str]) -> list[tuple[T, str]]:
    """Those that cannot be accepted beside the others, each with the reason against it.

    Halves are tried beside what is accepted so far, until single ones are left: the accepted ones are right together.

    Args:
        suspects: All of them; those that come first are accepted first.
        objection: Tries some together; what is wrong with them, or nothing.
    """
    accepted: list[T] = []
    found: list[tuple[T, str]] = []
    pending = [list(suspects)] if suspects else []
    while pending:
        chunk = pending.pop()
        reason = objection([*accepted, *chunk])
        if not reason:
            accepted += chunk
        elif len(chunk) == 1:
            found.append((chunk[0], reason))
        else:
            half = len(chunk) // 2
            pending += [chunk[half:], chunk[:half]]
    return found
