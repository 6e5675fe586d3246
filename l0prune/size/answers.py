"""What a metric answers, checked: one of somebody's own may give anything, and is named where that is no number."""

import math
from collections.abc import Mapping
from typing import Any

from l0prune.errors import ConfigError
from l0prune.size.polynomial import SizeModel


def checked_size(name: str, size: Any) -> SizeModel:
    """The size that a metric gives.

    Args:
        name: Of the metric.
        size: What its `size` has returned.

    Raises:
        ConfigError: It is no SizeModel, or one whose coefficients or dense size are no whole numbers above 0.
    """
    if not isinstance(size, SizeModel):
        raise ConfigError("the metric gives no size", where=name, got=type(size).__name__, expected="a SizeModel")
    for value in size.coefficients.values():
        if not _number(value).is_integer():
            raise ConfigError("the metric's coefficients are no whole numbers", where=name, got=repr(value))
    total = checked_number("the metric's dense size is no number", name, size.total)
    if total <= 0:
        raise ConfigError("the metric counts nothing", where=name, got=f"a dense size of {size.total}")
    return size


def checked_number(what: str, name: str, value: Any) -> float:
    """A number that a metric gives.

    Args:
        what: What to say if it is none.
        name: Of the metric.
        value: What it has given.

    Raises:
        ConfigError: It is no number, or no finite one.
    """
    number = _number(value)
    if not math.isfinite(number):
        raise ConfigError(what, where=name, got=repr(value), expected="a finite number")
    return number


def checked_facts(name: str, facts: Any) -> dict[str, Any]:
    """What a metric has found by measuring at the cut.

    Raises:
        ConfigError: It is no mapping by name.
    """
    if not isinstance(facts, Mapping) or not all(isinstance(key, str) for key in facts):
        raise ConfigError("the metric gives no facts", where=name, got=repr(facts), expected="a mapping by name")
    return dict(facts)


def _number(value: Any) -> float:
    """A value as a number, NaN where it is none; scalars of numpy and torch are numbers, text is none."""
    try:
        return math.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return math.nan
