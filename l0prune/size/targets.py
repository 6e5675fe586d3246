"""Several targets at once: from what a caller writes to one `Target` for each metric.

A value is what is to be left at most: a share of the dense size, or an amount in one of the metric's units.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor
from numbers import Real

from l0prune.errors import ConfigError, TargetError, nearest
from l0prune.size.latency import Latency
from l0prune.size.limits import Bounds
from l0prune.size.metric import Metric, Subject, Target, below_reach, metric_named, metric_names
from l0prune.size.several import Budget
from l0prune.size.wish import Wish
from l0prune.support import plain

Targets = Mapping[str | Metric, float | str]
"""What is to be left of each metric at most: {"params": 0.25, "latency_ms": 40, "macs": "30%"}."""

_AMOUNT = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(%|[A-Za-z]*)\s*")
_EXPECTED = "a share of the dense size such as 0.25 or 25%, or an amount with its unit such as 40ms"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One target as it was asked for."""

    metric: Metric
    wish: Wish
    text: str
    """As it was written."""


def read_targets(targets: Targets | Mapping[str, float | str]) -> list[Asked]:
    """Read targets, before anything is measured.

    Args:
        targets: What is to be left of each metric, by its name. A name may end in a unit, "latency_ms" for example.

    Raises:
        ConfigError: There are none, a metric is unknown or named twice, or a value is out of range.
    """
    if not isinstance(targets, Mapping) or not targets:
        expected = 'a mapping such as {"params": 0.25, "latency_ms": 40}'
        raise ConfigError("no targets", where="target", got=repr(targets), expected=expected)
    found: dict[str, Asked] = {}
    for key, value in targets.items():
        asked = _read(key, value)
        if asked.metric.name in found:
            got = f"{found[asked.metric.name].text} and {asked.text}"
            raise ConfigError("two targets for one metric", where=asked.metric.name, got=got, expected="one of them")
        asked.metric.check(asked.wish)
        found[asked.metric.name] = asked
    timed = [asked for asked in found.values() if isinstance(asked.metric, Latency)]
    if len(timed) > 1:
        got = " and ".join(asked.text for asked in timed)
        hint = "what is measured is of one form: choose the one in which the network will run"
        raise ConfigError("two measured times", where="target", got=got, expected="one of them", hint=hint)
    return list(found.values())


def parse_targets(text: str) -> dict[str, str]:
    """Targets from a command line: `params=25%,latency=40ms`.

    Raises:
        ConfigError: A part is no METRIC=VALUE, or a metric is named twice.
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (equals and name and value):
            raise ConfigError("not a target", where="--target", got=repr(part), expected="params=25%,latency=40ms")
        if name in found:
            raise ConfigError("two targets for one metric", where=name, got=text, expected="one of them")
        found[name] = value
    return found


def joint_target(subject: Subject, asked: Sequence[Asked]) -> Target:
    """Measure for each target, and put them together: the first that asks for a removal leads.

    Raises:
        ConfigError: A metric cannot be counted on this model.
        TargetError: Budgets that nothing meets, each with the nearest that can be met; or all are met already.
    """
    found: list[Target] = []
    unmet: list[tuple[Asked, TargetError]] = []
    for one in asked:
        try:
            found.append(one.metric.target(subject, replace(one.wish, alone=len(asked) == 1)))
        except TargetError as error:
            unmet.append((one, error))
    round_to = _common_multiple(found)
    for target in found:
        # Widths that suit one metric may be too wide for another.
        most, multiple = floor(round(target.size.total * (1 - target.sparsity), 6)), round_to or 1
        if most < target.size.floor_for(multiple):
            one = next(one for one in asked if one.metric is target.metric)
            unmet.append((one, below_reach(one.metric.name, target.size, most, multiple)))
    if len(unmet) == 1:
        ((one, error),) = unmet
        where = one.metric.name if error.where in (None, one.metric.name) else f"{one.metric.name}, {error.where}"
        raise TargetError(error.what, where=where, got=error.got, expected=error.expected, hint=error.hint) from error
    if unmet:
        got = ", ".join(one.text for one, _ in unmet)
        expected = "; ".join(f"{one.metric.name}: {error.expected or error.what}" for one, error in unmet)
        hint = "ask for less, or prune more kinds of unit"
        raise TargetError("no network meets these targets", got=got, expected=expected, hint=hint)
    if len(found) == 1:
        return found[0]
    removing = [target for target in found if target.sparsity > 0]
    if not removing:
        got = ", ".join(one.text for one in asked)
        raise TargetError("the dense network meets every target", got=got, hint="ask for a smaller one")
    leading = removing[0]
    measured = {name: value for target in reversed(found) for name, value in target.facts.items()}
    return replace(
        leading,
        round_to=round_to,
        facts=measured | ({"round_to": round_to} if "round_to" in measured else {}),
        kept=next((target.kept for target in found if target.kept is not None), None),
        more=tuple(target for target in found if target is not leading),
    )


def _common_multiple(found: Sequence[Target]) -> int | None:
    """What widths are multiples of where several targets say something."""
    # A width that is a multiple of 8 is one of 4: the smallest serves all. What was measured to be fast goes first.
    multiples = [t.round_to for t in found if t.metric.measured_at_cut] or [t.round_to for t in found]
    return min((number for number in multiples if number is not None), default=None)


def check_within(target: Target, bounds: Bounds) -> None:
    """Check that what limits make stay leaves room for every budget.

    Raises:
        TargetError: It does not; says by how much.
    """
    exceeded = [budget for budget in budgets_of(target) if budget.size.exact(bounds.low) > budget.most]
    if exceeded:
        got = [f"{b.size.shown(b.most)} of {b.size.shown(b.size.total)} {b.size.counts}" for b in exceeded]
        expected = []
        for name, size, *_ in exceeded:
            least, whose = size.exact(bounds.low), f"{name}: " if len(exceeded) > 1 else ""
            expected.append(f"{whose}{size.shown(least)} or more ({plain(least / size.total)} of the dense size)")
        raise TargetError(
            "the limits leave more than the target allows",
            where=", ".join(budget.name for budget in exceeded),
            got=", ".join(got),
            expected="; ".join(expected),
            hint="lower the floors, or ask for less",
        )


def removing(target: Target) -> list[Budget]:
    """The further budgets that ask for a removal: those that the dense network meets cannot be exceeded."""
    return [_budget(one, target.round_to) for one in target.more if one.sparsity > 0]


def budgets_of(target: Target) -> list[Budget]:
    """The budget of each metric, the leading one first."""
    return [_budget(one, target.round_to) for one in (target, *target.more)]


def _budget(one: Target, round_to: int | None) -> Budget:
    return Budget(one.metric.name, one.size, one.sparsity, one.most_for(round_to or 1))


def _read(key: str | Metric, value: float | str) -> Asked:
    metric, unit = _metric_of(key)
    name = metric.name if unit is None else f"{metric.name}_{unit}"
    text = f"{name}={value}"
    number, given = _number_of(name, value)
    if given == "%":
        if unit is not None:
            hint = f"name the metric without its unit: {metric.name}={value}"
            raise ConfigError("a share of an amount", where=name, got=value, expected=f"a number of {unit}", hint=hint)
        number, given = number / 100, ""
        share = True
    else:
        share = unit is None and not given and number < 1
    if unit is not None and given and given.lower() != unit:
        raise ConfigError("two units", where=name, got=value, expected=f"a number of {unit}")
    if share:
        if not 0 < number < 1:
            raise ConfigError("target out of range", where=name, got=value, expected="a share between 0 and 1")
        return Asked(metric=metric, wish=Wish(sparsity=1 - number), text=text)
    unit = (given.lower() or unit) if given else unit
    if not number > 0 or number == float("inf"):
        raise ConfigError("target out of range", where=name, got=value, expected=_EXPECTED)
    if unit is None and "" not in metric.units:
        units = ", ".join(f"{number:g}{one}" for one in metric.units) or "25%"
        raise ConfigError("target without a unit", where=name, got=value, expected=f"a share below 1, or {units}")
    if (unit or "") not in metric.units:
        known = [one for one in metric.units if one]
        hint = nearest(unit or "", known) if known else "give a share of the dense size, 25% for example"
        raise ConfigError("no such unit", where=name, got=unit, hint=hint)
    return Asked(metric=metric, wish=metric.amount(number, unit or ""), text=text)


def _number_of(name: str, value: object) -> tuple[float, str]:
    """A value's number, and what stands behind it: %, a unit or nothing."""
    if isinstance(value, str):
        match = _AMOUNT.fullmatch(value)
        if match is None:
            raise ConfigError("not a target", where=name, got=repr(value), expected=_EXPECTED)
        return float(match[1]), match[2]
    if isinstance(value, Real) and not isinstance(value, bool):
        return float(value), ""
    raise ConfigError("target has the wrong type", where=name, got=repr(value), expected=_EXPECTED)


def _metric_of(key: str | Metric) -> tuple[Metric, str | None]:
    """The metric of a name, and the unit that the name ends in."""
    if isinstance(key, Metric) or key in metric_names():
        return metric_named(key), None
    name, _, unit = str(key).rpartition("_")
    if name in metric_names():
        metric = metric_named(name)
        if unit.lower() in metric.units and unit:
            return metric, unit.lower()
        known = [f"{name}_{one}" for one in metric.units if one]
        hint = nearest(str(key), known) if known else f"{name} takes a share of the dense size"
        raise ConfigError("no such unit", where=key, got=unit, hint=hint)
    return metric_named(key), None  # Refuses the name.
