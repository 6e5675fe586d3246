"""The fewest and the most units that a group keeps: what removal allows, and limits by name pattern.

Legend: G groups.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from math import ceil, floor
from typing import NamedTuple

import numpy as np

from l0prune.errors import ConfigError, TargetError, nearest
from l0prune.groups import PruneGroup

Limits = Mapping[str, tuple[float, float]]
"""A floor and a ceiling by name pattern: shares of the units that a group keeps."""
_ROUNDING = 1e-9
"""Of a share of units: 0.3 * 10 is not exactly 3."""


class Bounds(NamedTuple):
    """Whole numbers of units that each group may keep."""

    low: np.ndarray
    """(G,) at least."""
    high: np.ndarray
    """(G,) at most."""


def bounds_of(groups: Sequence[PruneGroup], limits: Limits, round_to: int = 1) -> Bounds:
    """The numbers of units that each group may keep. Where several patterns match a group, all of them hold.

    Args:
        groups: The dense model's prune groups.
        limits: Floor and ceiling by name pattern, as `GateConfig` has checked them; `*`, `?` and `[...]` are as in file
            names.
        round_to: Widths stay multiples of this many channels: floors are rounded up and ceilings down.

    Raises:
        ConfigError: A pattern matches no group.
        TargetError: No number of units lies between the floor and the ceiling of a group.
    """
    names = [group.name for group in groups]
    for pattern in limits:
        if not any(fnmatchcase(name, pattern) for name in names):
            hint = nearest(pattern.rstrip("*."), names, or_all=len(names) <= _FEW) or f"groups are {names[0]}, ..."
            raise ConfigError("no group has a name like this", where=f"limits, {pattern!r}", hint=hint)
    smallest = [max(min(group.step(round_to), group.units), group.least_units) for group in groups]
    least = [few if group.least_units else 0 for few, group in zip(smallest, groups, strict=True)]
    low, high = np.array(least, dtype=np.int64), np.array([group.units for group in groups], dtype=np.int64)
    for g, group in enumerate(groups):
        pairs = [pair for pattern, pair in limits.items() if fnmatchcase(group.name, pattern)]
        if not pairs:
            continue
        share, ceiling = max(pair[0] for pair in pairs), min(pair[1] for pair in pairs)
        step, units = group.step(round_to), group.units
        low[g] = max(low[g], min(units, ceil((share * units - _ROUNDING) / step) * step))
        most = floor(ceiling * units + _ROUNDING)
        high[g] = units if most == units else most // step * step
        if low[g] > high[g]:
            raise TargetError(
                "no number of units lies within the limits",
                where=group.name,
                got=f"{share:g} to {ceiling:g} of {units}",
                expected=f"a ceiling of {low[g] / units:.4f} or more",
                hint=f"it keeps {low[g]} units or more, in steps of {step}",
            )
    return Bounds(low, high)


_FEW = 12
"""Groups that a message names all."""
