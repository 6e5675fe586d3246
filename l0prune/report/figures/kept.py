"""A pruned architecture as a picture, whatever the network: what each group keeps, a panel for each kind of unit."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l0prune.plugin import UnitKind
from l0prune.removal import RemovalPlan
from l0prune.report.figures.style import INK, PALE, SERIES, Drawing, drawing, write_sheet
from l0prune.support import figure_label

_COLUMNS = 3
_MOST_LABELS, _MOST_COUNTS = 12, 48
"""Bars of a panel of which each has its name, and its number."""
_NAME_LETTERS = 20
_MOST_STACKS = 6
"""Of blocks, that have a panel each."""


@dataclass(frozen=True, kw_only=True)
class KeptUnits:
    """What is left of a prune group."""

    group: str
    kind: str
    units: int
    kept: int


def kept_units(plan: RemovalPlan) -> tuple[KeptUnits, ...]:
    """What is left of each group of a plan, in the network's order."""
    counts = plan.kept_counts
    return tuple(
        KeptUnits(group=group.name, kind=group.kind, units=group.units, kept=counts[group.name])
        for group in plan.groups
    )


def kept_figures(
    groups: Sequence[KeptUnits], kinds: Mapping[str, UnitKind] | None = None, prefix: str = ""
) -> Iterator[Drawing]:
    """For each kind of unit, what each group keeps over what was there.

    Args:
        groups: In the network's order.
        kinds: What kinds of unit are called; their names by default.
        prefix: Makes the names of the figures unique on a page.
    """
    kinds = kinds or {}
    present = dict.fromkeys(group.kind for group in groups)
    # In the order of whoever named them; others follow in the network's order.
    panels = [
        (kind, stack, mine)
        for kind in sorted(present, key=[*kinds, *present].index)
        for stack, mine in _stacks([g for g in groups if g.kind == kind], named=kind in kinds)
    ]
    for number, (kind, stack, mine) in enumerate(panels, start=1):
        yield _kept_figure(f"{prefix}kept-{number}", kind, kinds.get(kind), stack, mine)


def _stacks(groups: Sequence[KeptUnits], *, named: bool) -> Sequence[tuple[str, Sequence[KeptUnits]]]:
    """Groups by the stack of blocks that they are in, where several number their blocks alike.

    Those of an encoder and a decoder do, and self-attention and cross-attention. Each stack comes with the words of its
    groups' names that not all stacks have.
    """
    stacks: dict[tuple[str, ...], list[KeptUnits]] = {}
    for group in groups:
        words = group.group.split(".")
        number = next((place for place, word in enumerate(words) if word.isdecimal()), None)
        if number is None:
            return [("", groups)]
        stacks.setdefault((*words[:number], *words[number + 1 :]), []).append(group)
    apart = all(1 < len(mine) == len(_firsts(mine)) for mine in stacks.values())
    if not (named and apart and 1 < len(stacks) <= _MOST_STACKS and len(_firsts(groups)) < len(groups)):
        return [("", groups)]
    common = set.intersection(*map(set, stacks))
    return [(" ".join(word for word in words if word not in common), mine) for words, mine in stacks.items()]


def _kept_figure(name: str, kind: str, words: UnitKind | None, stack: str, groups: Sequence[KeptUnits]) -> Drawing:
    kept, units = [group.kept for group in groups], [group.units for group in groups]
    title = f"{words.title if words else kind}{f', {stack}' if stack else ''}: {sum(kept):,} of {sum(units):,} kept"
    places = _numbers(groups) if words else range(1, len(groups) + 1)
    each = (f"{p if words else g.group}: {g.kept} of {g.units}" for p, g in zip(places, groups, strict=True))
    alt = f"{title}. By {words.axis if words else 'group'}, in the network's order: {', '.join(each)}."

    def paint(axes: Any) -> None:
        axes.bar(places, units, color=PALE)
        bars = axes.bar(places, kept, color=SERIES[0])
        few = len(groups) <= _MOST_LABELS
        if len(groups) <= _MOST_COUNTS:
            axes.bar_label(bars, fontsize=7 if few else 5.5, rotation=0 if few else 90, padding=2, color=INK)
        if words is None:
            named = range(0, len(groups), -(-len(groups) // _MOST_LABELS))
            labels = [figure_label(groups[i].group, _NAME_LETTERS) for i in named]
            axes.set_xticks([places[i] for i in named], labels, rotation=90, fontsize=7)
        else:
            axes.set_xlabel(words.axis)
            axes.xaxis.get_major_locator().set_params(integer=True)
            if few:
                axes.set_xticks(places)
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.set_ylabel("units")
        axes.set_ylim(0, 1.12 * max(units))

    return drawing(name, title, alt, paint, height=2.6 if words else 3.4)


def _numbers(groups: Sequence[KeptUnits]) -> Sequence[int]:
    """The numbers of groups, from 1 on, by their names: where a block is absent, others keep their numbers."""
    firsts = _firsts(groups)
    return sorted(firsts) if len(firsts) == len(groups) else range(1, len(groups) + 1)


def _firsts(groups: Sequence[KeptUnits]) -> set[int]:
    """The first numbers in the names of groups, from 1 on."""
    return {int(number[0]) + 1 for group in groups if (number := re.findall(r"(?<![^.])\d+(?![^.])", group.group))}


def draw_kept_units(plan: RemovalPlan, path: Path, kinds: Mapping[str, UnitKind] | None = None) -> None:
    """Draw what each group of a plan keeps, a panel for each kind of unit.

    Args:
        plan: The removal plan.
        path: A PNG file to write.
        kinds: What kinds of unit are called; their names by default.
    """
    write_sheet(path, [*kept_figures(kept_units(plan), kinds)], columns=_COLUMNS)
