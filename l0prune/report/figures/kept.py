"""A pruned architecture as a picture, whatever the network: what each group keeps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l0prune.removal import RemovalPlan
from l0prune.report.figures.style import INK, PALE, SERIES, Drawing, draw, picture
from l0prune.support import figure_label

_MOST_ROWS = 150
"""Of a larger network the bars get thinner, and only some are named."""
_MOST_LETTERS = 48
_MOST_LABELS = 12
_KEPT, _REMOVED = "#2b6cb0", "#e2e8f0"


def draw_kept_units(plan: RemovalPlan, path: Path) -> None:
    """Draw the kept share of each group as a bar, in the network's order.

    Shares, as widths of groups are far apart: a layer may have 12 heads and 3,072 hidden units.

    Args:
        plan: The removal plan.
        path: A PNG file to write.
    """
    kept, places = plan.kept_counts, range(len(plan.groups))
    named = places[:: -(-len(places) // _MOST_ROWS)]
    with picture(path, 7, 1 + 0.22 * min(len(places), _MOST_ROWS)) as figure:
        axes = figure.subplots()
        axes.barh(places, [1] * len(places), color=_REMOVED)
        axes.barh(places, [kept[group.name] / group.units for group in plan.groups], color=_KEPT)
        axes.set_yticks(named, [figure_label(plan.groups[i].name, _MOST_LETTERS) for i in named])
        counts = axes.secondary_yaxis("right")
        counts.set_yticks(named, [f"{kept[plan.groups[i].name]:,} of {plan.groups[i].units:,}" for i in named])
        for side in (axes, counts):
            side.tick_params(axis="y", labelsize=7, length=0)
        axes.set_ylim(len(places) - 0.4, -0.6)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(lambda share, _place: f"{share:.0%}")
        axes.tick_params(axis="x", labelsize=8)
        units = sum(group.units for group in plan.groups)
        axes.set_title(f"Kept units: {sum(kept.values()):,} of {units:,}", fontsize=10)
        for spine in (*axes.spines.values(), *counts.spines.values()):
            spine.set_visible(False)


@dataclass(frozen=True, kw_only=True)
class KeptUnits:
    """What is left of a prune group."""

    group: str
    kind: str
    units: int
    kept: int


def kept_figure(name: str, kind: str, groups: Sequence[KeptUnits]) -> Drawing:
    """What is left of each group of a kind, over what was there.

    Args:
        name: Unique on the page.
        kind: Kind of unit.
        groups: In the network's order.
    """
    kept, units = [group.kept for group in groups], [group.units for group in groups]
    title = f"{kind}: {sum(kept):,} of {sum(units):,} kept"
    each = ", ".join(f"{group.kept} of {group.units}" for group in groups)
    alt = f"{title}. By group, in the network's order: {each}."

    def paint(axes: Any) -> None:
        numbers = range(1, len(groups) + 1)
        axes.bar(numbers, units, color=PALE)
        bars = axes.bar(numbers, kept, color=SERIES[0])
        if len(groups) <= _MOST_LABELS:
            axes.bar_label(bars, fontsize=8.5 if len(groups) < 9 else 7, padding=1, color=INK)
            axes.set_xticks(list(numbers))
        axes.set_xlabel("group")
        axes.set_ylabel("units")
        axes.set_ylim(0, 1.1 * max(units))

    return draw(name, title, alt, paint)
