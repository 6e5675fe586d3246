"""The part of a report's page that shows where a network's size is."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from l0prune.report.facts import RunFacts
from l0prune.report.figures import panels as figures
from l0prune.report.markup import Markup, table, tag
from l0prune.report.parts import Part, short_names
from l0prune.report.section import Section
from l0prune.support.text import quantity

_MUST_STAY = "Must stay: what is left when every group keeps one unit, or none where a block can be bypassed."


def size_sections(run: RunFacts, prefix: str) -> Iterator[Section]:
    """Parameters and multiply-accumulates of each part; nothing before there is a plan.

    Args:
        run: The run.
        prefix: Makes the names of its figures unique on the page.
    """
    parts = run.parts
    if parts is None:
        return
    alike = parts.by_pattern()
    short = short_names([part.name for part in alike])
    alike = [replace(part, name=short[part.name]) for part in alike]
    params = [(part.name, part.params_before, part.params_after) for part in alike]
    drawings = [figures.size_figure(f"{prefix}parameters-by-part", "Parameters by part", params)]
    if any(part.macs_before for part in alike):
        macs = [(part.name, part.macs_before or 0, part.macs_after or 0) for part in alike]
        drawings.append(figures.size_figure(f"{prefix}macs-by-part", f"MACs by part, per {parts.macs_per}", macs))
    total = sum(part.params_before for part in alike)
    notes = [_MUST_STAY, *([parts.note] if parts.note else [])]
    if run.report and not parts.note and run.report["params_before"] != total:
        notes.append(
            f"Before any pruning: this run began with a network of {run.report['params_before']:,} parameters."
        )
    each = tag("details", tag("summary", "Every part by itself"), _part_table("Every part", parts.rows))
    yield Section(
        title="Size by part",
        drawings=tuple(drawings),
        content=(_part_table("Parts, alike ones together", alike), *(tag("p", n, class_="note") for n in notes), each),
    )


def _part_table(caption: str, parts: Sequence[Part]) -> Markup:
    headings = ["module", "parameters before", "after", "left", "must stay"]
    counted = any(part.macs_before is not None for part in parts)
    if counted:
        headings += ["MACs before", "after", "left"]
    whole = Part(
        name="all",
        params_before=sum(part.params_before for part in parts),
        params_after=sum(part.params_after for part in parts),
        params_least=sum(part.params_least for part in parts),
        macs_before=sum(part.macs_before or 0 for part in parts),
        macs_after=sum(part.macs_after or 0 for part in parts),
    )
    rows = []
    for part in [*parts, whole]:
        name = f"{part.name} ({part.count})" if part.count > 1 else part.name
        cells = [
            name,
            f"{part.params_before:,}",
            f"{part.params_after:,}",
            _share(part.params_after, part.params_before),
            f"{part.params_least:,}",
        ]
        if counted:
            before, after = part.macs_before or 0, part.macs_after or 0
            cells += [quantity(before), quantity(after), _share(after, before)] if before else [""] * 3
        rows.append(cells)
    return table(caption, headings, rows, kind="numbers")


def _share(after: int, before: int) -> str:
    return f"{after / before:.1%}" if before else ""
