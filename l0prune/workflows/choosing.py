"""Which units a cut of an elastic run keeps: the run as it is read, and its order under the targets.

Legend: N units of all groups of the dense network, G groups.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from l0prune.errors import ConfigError, RunError
from l0prune.gates import check_between
from l0prune.removal import RemovalPlan
from l0prune.size import (
    Bounds,
    BudgetRow,
    Subject,
    Target,
    bounds_of,
    budget_for,
    budgets_of,
    explained,
    joint_target,
    kept_indices,
    select,
)
from l0prune.storage import Order, RunDirectory, build_dense, read_description, read_order, read_plan, read_report
from l0prune.support import (
    read_toml,
)
from l0prune.workflows.counting import stated_inputs


class ElasticRun(NamedTuple):
    """An elastic run as it is read."""

    order: Order
    scores: np.ndarray
    """(N,)"""
    description: Mapping[str, Any]
    plan: RemovalPlan
    """What the largest network lacks of the dense one."""
    report: Mapping[str, Any]
    settings: Mapping[str, Any]
    folder: Path

    @classmethod
    def read(cls, source: Path) -> "ElasticRun":
        """Read its folder.

        Raises:
            RunError: The run is not elastic, not finished or damaged.
        """
        folder = RunDirectory(source)
        if not folder.settings.is_file():
            raise RunError("no run here", where=source, expected="the folder of an elastic run")
        settings = read_toml(folder.settings)
        report = read_report(source)
        if report is None:
            raise RunError("the run is not finished", where=source, hint="finish it with --resume")
        order, description = read_order(folder.order), read_description(source)
        plan = read_plan(description, source)
        return cls(order, order.flat(plan.groups, folder.order), description, plan, report, settings, source)


class Choice(NamedTuple):
    """Units that stay."""

    target: Target
    kept: Mapping[str, tuple[int, ...]]
    """By group of the dense network."""
    rows: list[BudgetRow]
    """Where there are several targets, what each says of the choice."""


def choose_units(whole: ElasticRun, asked: list[Any], made: Callable[[], nn.Module] | None) -> Choice:
    """The units of the dense network that the order keeps within all targets.

    Args:
        whole: The run.
        asked: The targets, as `read_targets` gives them.
        made: Makes the dense network, where no plugin does.

    Raises:
        ConfigError: A size that was not trained, or a metric that is measured.
        TargetError: Nothing meets the targets.
    """
    order, plan = whole.order, whole.plan
    ends = order.smallest, order.largest
    for one in asked:
        if one.metric.measured_at_cut:
            raise ConfigError(
                "a cut goes by a size that is counted", where=one.metric.name, hint="cut to params or macs"
            )
        if one.metric.name == order.metric and one.wish.sparsity is not None:
            check_between(1 - one.wish.sparsity, ends)
    dense = (made() if made else build_dense(whole.description, whole.folder)).eval()
    plan.check(dense)
    inputs = stated_inputs(whole.description.get("counted_on"), "cpu")
    subject = Subject(model=dense, groups=plan.groups, observe=lambda model: model(*inputs), round_to=order.round_to)
    target = joint_target(subject, asked)
    budgets = budgets_of(target)
    for budget in budgets:
        if budget.name == order.metric:
            check_between(1 - budget.sparsity, ends)
    low, high = bounds_of(plan.groups, {name: (row[0], row[1]) for name, row in order.limits.items()}, order.round_to)
    most = np.minimum(high, [plan.kept_counts[group.name] for group in plan.groups])
    settings: dict[str, Any] = {
        "bounds": Bounds(np.minimum(low, most), most),
        "round_to": order.round_to,
        "uniform": order.uniform,
    }
    limits = [(budget.size, budget.most) for budget in budgets]
    kept = select(whole.scores, plan.groups, *limits[0], **settings, more=limits[1:])
    size = next((b.size for b in budgets if b.name == order.metric), None) or _size_of(order.metric, subject)
    least = select(
        whole.scores, plan.groups, size, budget_for(size, 1 - order.smallest, round_to=order.round_to), **settings
    )
    found, smallest = (size.exact(_counts(units, plan)) for units in (kept, least))
    if found < smallest:
        what = "outside the range that was trained"
        expected = f"{order.smallest:g} to {order.largest:g} of the {order.metric}"
        raise ConfigError(what, got=f"{found / size.total:.4f} of the {order.metric}", expected=expected)
    rows: list[BudgetRow] = []
    if len(budgets) > 1:
        rows = explained(whole.scores, plan.groups, budgets, _counts(kept, plan), **settings)
    return Choice(target, kept_indices(kept, plan.groups), rows)


def _size_of(metric: str, subject: Subject) -> Any:
    from l0prune.size import metric_named

    return metric_named(metric).size(subject)


def _counts(kept: np.ndarray, plan: RemovalPlan) -> np.ndarray:
    """(G,) kept units."""
    return np.array([len(units) for units in kept_indices(kept, plan.groups).values()])
