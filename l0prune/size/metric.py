"""What a target counts, behind one interface: the class of all metrics, their names, and the target itself.

Legend: G groups.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import nn

from l0prune.discovery import Trace, trace
from l0prune.errors import ConfigError, L0PruneError, TargetError
from l0prune.example import Observe
from l0prune.groups import PruneGroup
from l0prune.size.answers import checked_number, checked_size
from l0prune.size.polynomial import SizeModel
from l0prune.size.rounding import RoundTo, rounding_for
from l0prune.size.selection import budget_for
from l0prune.size.wish import Wish
from l0prune.support import Registry, say

Facts = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A dense model and how it is run, for a metric to measure."""

    model: nn.Module
    """Without gates; a metric leaves it as it is."""
    groups: tuple[PruneGroup, ...]
    observe: Observe
    """Runs a model on the input whose cost matters."""
    parameters: SizeModel | None = None
    """The number of parameters, where it was counted already."""
    macs: SizeModel | None = None
    """The number of multiply-accumulates, where it was counted already."""
    deploy: Callable[[nn.Module], nn.Module] | None = None
    """Gives a model the form in which it will run."""
    round_to: RoundTo = None
    """What widths are to be multiples of: a number, or "auto" for what is known to be fast; None where nothing is said.
    The metric "latency" measures what is fast in both of the last two cases."""
    time_limit: float = 60.0
    """Seconds that following a forward pass may take."""
    cache: Sequence[Path] = ()
    """Files that keep what is measured; where they cannot be written, nothing is kept."""
    resumed: bool = False
    """Whether these are a run's own, which goes on with the figures that it began with."""
    note: Callable[[str], None] = say
    """Told what goes on."""

    @cached_property
    def trace(self) -> Trace:
        """One forward pass, operator by operator."""
        return trace(self.model, self.observe, training=False, time_limit=self.time_limit)


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is removed, of what, in one form for everything that needs it."""

    metric: "Metric"
    size: SizeModel
    """What the gates are counted by."""
    sparsity: float
    """Share of `size` to remove."""
    asked: float
    """Share of what the metric measures to remove; another one where the size only predicts it."""
    round_to: int | None = None
    """What widths are multiples of, where the metric or the caller says."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What measuring found, for the report."""
    kept: Mapping[str, Any] | None = None
    """What a resumed run must find again, as JSON."""
    more: tuple["Target", ...] = ()
    """Further targets, which hold beside this one."""
    alone: bool = True
    """Whether it is the only one: a smaller network than asked will do where it is one of several."""

    @property
    def budget(self) -> int:
        """The largest size allowed.

        Raises:
            TargetError: The sparsity is out of range, or more than can be removed.
        """
        return self.most_for(self.round_to or 1)

    def most_for(self, round_to: int) -> int:
        """The largest size allowed with widths that are multiples of `round_to`.

        Raises:
            TargetError: The sparsity is out of range, or more than can be removed.
        """
        if not self.alone and self.sparsity <= 0:
            # The dense network meets this one.
            return int(self.size.total * (1 - self.sparsity))
        return budget_for(self.size, self.sparsity, round_to=round_to)

    def left(self, kept: np.ndarray, facts: Mapping[str, Any]) -> float:
        """Share of what the metric counts that is left after the cut, for kept counts (G,).

        Raises:
            ConfigError: The metric gives no number.
        """
        share = self.metric.left(self, kept, facts)
        return checked_number("the metric gives no share that is left", self.metric.name, share)

    @property
    def measured_at_cut(self) -> bool:
        """Whether the metric of any target measures at the cut."""
        return any(one.metric.measured_at_cut for one in (self, *self.more))


class Cut(Protocol):
    """A gated model just before its cut, as a metric sees it."""

    size_model: SizeModel
    gates: Any

    def pruned(self) -> Any:
        """The pruned copy, and its plan."""


class Metric:
    """A size that a target is of.

    A metric of one's own is a subclass with `name`, `noun` and `size`, handed to `register_metric`.
    """

    name = ""
    """In settings: `metric="..."`."""
    noun = ""
    """What it counts, in sentences."""
    units: Mapping[str, float] = {}
    """How much of the size makes one of each unit that an amount may be given in, in lower case; "" for none."""
    measured_at_cut = False
    """Whether the size only predicts what counts, so that `meet` measures at the cut. A copy of the dense model is kept
    for it."""

    def size(self, subject: Subject) -> SizeModel:
        """The size of any choice of units, as a polynomial of kept counts.

        Raises:
            ConfigError: It cannot be counted on this model.
        """
        raise NotImplementedError

    def amount(self, number: float, unit: str) -> Wish:
        """The wish for at most so many of one of `units`."""
        return Wish(most=number * self.units[unit])

    def check(self, wish: Wish) -> None:
        """Refuse a wish that this metric cannot serve, before anything is measured.

        Raises:
            ConfigError: It is a time, and the metric is not.
        """
        for name, value in (("target_speedup", wish.speedup), ("target_ms", wish.ms)):
            if value is not None:
                raise ConfigError(f"{name} needs the metric latency", got=self.name, expected="latency")

    def target(self, subject: Subject, wish: Wish) -> Target:
        """Measure, and say what is to be removed.

        Raises:
            ConfigError: The metric cannot be counted on this model, or serves no such wish.
            TargetError: The wish cannot be met.
        """
        self.check(wish)
        if wish.sparsity is None and wish.most is None:
            raise ConfigError("no target", expected="a share to remove")
        size = self._checked(subject)
        sparsity = self._sparsity(size, wish)
        multiple = rounding_for(subject.round_to, subject.groups, size, sparsity)
        return Target(metric=self, size=size, sparsity=sparsity, asked=sparsity, round_to=multiple, alone=wish.alone)

    def _sparsity(self, size: SizeModel, wish: Wish) -> float:
        if wish.sparsity is not None:
            return wish.sparsity
        assert wish.most is not None
        if wish.most < size.floor:
            raise below_reach(self.name, size, int(wish.most), 1)
        if wish.alone and wish.most >= size.total:
            raise TargetError(
                "dense network is as small",
                where=self.name,
                got=size.shown(int(wish.most)),
                expected=f"below {size.shown(size.total)} {size.counts}",
                hint="there is nothing to remove: ask for less",
            )
        return 1 - wish.most / size.total

    def meet(self, cut: Cut, target: Target, subject: Subject) -> Facts:
        """Move the budget so that the target is met when it is measured; called where `measured_at_cut` says so.

        Args:
            cut: The gated model in evaluation mode.
            target: The target.
            subject: With a copy of the dense model.

        Returns:
            Facts for the report.
        """
        return {}

    def left(self, target: Target, kept: np.ndarray, facts: Mapping[str, Any]) -> float:
        """Share of what the metric counts that is left after the cut, for kept counts (G,)."""
        return target.size.exact(kept) / target.size.total

    def _checked(self, subject: Subject) -> SizeModel:
        try:
            size = self.size(subject)
        except L0PruneError:
            raise
        except Exception as error:
            raise ConfigError("the metric failed", where=self.name, got=f"{type(error).__name__}: {error}") from error
        return checked_size(self.name, size)


def below_reach(name: str, size: SizeModel, most: int, round_to: int) -> TargetError:
    """What to say where removal cannot make a size as small as asked.

    Args:
        name: Of the metric.
        size: The size.
        most: What was asked for.
        round_to: What widths have to be multiples of.
    """
    least = size.floor_for(round_to)
    widths = f" with widths in multiples of {round_to}" if round_to > 1 else ""
    # Rounded up, so that the advice itself is feasible.
    share = ceil(least / size.total * 10_000) / 100
    return TargetError(
        "target is below what removal can reach",
        where=name,
        got=f"{size.shown(most)} {size.counts}",
        expected=f"{size.shown(least)} {size.counts} or more, {share:g}% of the dense size{widths}",
        hint=f"ask for less{', lower `round_to`' if round_to > 1 else ''} or prune more kinds of unit",
    )


_METRICS: Registry[str, Metric] = Registry("metric")


def register_metric(metric: Metric, *, replace: bool = False) -> Metric:
    """Let settings name a metric, `wrap(..., metric="name")` and `--metric name`.

    Args:
        metric: An instance.
        replace: Take the place of one of the same name.

    Raises:
        ConfigError: It is no metric, has no name, or the name is taken.
    """
    if not isinstance(metric, Metric):
        raise ConfigError("not a metric", got=repr(metric), expected="an instance of l0prune.size.Metric")
    if not isinstance(metric.name, str) or not metric.name:
        got, hint = repr(metric.name) if metric.name else None, "set `name` on its class"
        raise ConfigError("the metric has no name", where=type(metric).__name__, got=got, hint=hint)
    return _METRICS.register(metric.name, metric, replace=replace)


def metric_named(name: object) -> Metric:
    """The metric of a name; a metric itself is returned as it is.

    Raises:
        ConfigError: There is none.
    """
    return name if isinstance(name, Metric) else _METRICS.named(name)


def metric_names() -> tuple[str, ...]:
    """The names of all metrics."""
    return tuple(_METRICS)


def noun_of(name: str) -> str:
    """What a metric counts, in sentences; its name where this process does not know it."""
    return _METRICS[name].noun if name in _METRICS else name
