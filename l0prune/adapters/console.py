"""What the terminal shows by rich: consoles, tables that fit them, and what a run has achieved."""

import os
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from l0prune.support import plain, quantity

if TYPE_CHECKING:
    from l0prune.workflows import CompressionReport


def make_console(*, stderr: bool = False) -> Console:
    """A console that shows names as they are and never breaks the lines of a pipe or a log.

    Where COLUMNS gives a width, tables keep to it in a pipe too.
    """
    console = Console(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)
    if not console.is_terminal and not os.environ.get("COLUMNS", "").isdigit():
        console.width = _UNBOUNDED
    return console


def fitted(part: RenderableType, width: int) -> RenderableType:
    """A table as it is, where words and numbers stay whole in so many columns; else its rows one below the other."""
    if not isinstance(part, Table) or (_least_width(part) <= width and not _crowded(part, width)):
        return part
    return Group(*_stacked(part, width))


def _stacked(table: Table, width: int) -> Iterator[Text]:
    """A line for each value of each row, with its heading; the first value stands above the others."""
    if table.title:
        for line in str(table.title).splitlines():
            yield Text("\n".join(_lines(line, width)), style="italic")
    first, *others = ([str(cell) for cell in column.cells] for column in table.columns)
    headings = [str(column.header) for column in table.columns[1:]]
    for name, *values in zip(first, *others, strict=True):
        yield Text(name, style="bold")
        for heading, value in zip(headings, values, strict=True):
            if value:
                yield Text("\n".join(_lines(f"{heading}: {value}", width, "  ")))


def _lines(text: str, width: int, indent: str = "") -> list[str]:
    """Text in lines of so many columns; words stay whole: a path can be copied."""
    more = f"{indent}  " if indent else ""
    return textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=more, break_long_words=False, break_on_hyphens=False
    )


def _crowded(table: Table, width: int) -> bool:
    """Whether a column of text would be a narrow strip of many lines, as the others need the width."""
    needs = [max(cell_len(str(cell)) for cell in (column.header, *column.cells)) for column in table.columns]
    longest = max(range(len(needs)), key=needs.__getitem__)
    room = width - sum(needs) + needs[longest] - 3 * len(needs) - 1
    return 0 < room < _STRIP and needs[longest] > _LINES * room


def _least_width(table: Table) -> int:
    """Columns in which no word and no number of a table is broken; a long name may be."""
    widths = []
    for column in table.columns:
        cells = [str(cell) for cell in column.cells]
        whole = [str(column.header), *cells] if column.no_wrap else []
        words = [word for cell in (str(column.header), *cells) for word in cell.split()]
        longest = max(map(cell_len, whole or words), default=0)
        widths.append(min(longest, _FOLDED) if column.overflow == "fold" else longest)
    return sum(widths) + 3 * len(widths) + 1


_UNBOUNDED = 10_000
"""Columns of a pipe or a log: more than any table needs."""
_FOLDED = 24
"""Columns in which a long name that is folded can still be read."""
_STRIP, _LINES = 40, 4
"""Sentences in fewer columns than that, and in more lines, are easier to read below each other."""


def add_numbers(table: Table, *headings: str) -> None:
    """Add columns of numbers, which are not broken."""
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)


def report_table(report: "CompressionReport") -> Table:
    """Before and after."""
    # A task of one's own need not name a teacher.
    of = f"{report.teacher} at sparsity" if report.teacher else "Sparsity"
    table = Table(title=f"{of} {report.sparsity:.4f}", title_justify="left")
    table.add_column("")
    add_numbers(table, "before", "after", "ratio")
    ratio = report.params_before / report.params_after
    table.add_row("parameters", f"{report.params_before:,}", f"{report.params_after:,}", f"{ratio:.2f}x")
    if report.macs_after is not None:
        ratio = report.macs_before / max(1, report.macs_after)
        macs = f"MACs per {report.macs_per.split(',')[0]}"
        table.add_row(macs, quantity(report.macs_before), quantity(report.macs_after), f"{ratio:.2f}x")
    if report.latency_before_ms and report.latency_after_ms and report.speedup:
        times = (f"{plain(ms)} ms" for ms in (report.latency_before_ms, report.latency_after_ms))
        table.add_row("latency, measured at the cut", *times, f"{report.speedup:.2f}x faster")
    losses = (
        ("held-out loss before the cut", report.distill_loss_before_removal),
        ("held-out loss after the cut", report.distill_loss_after_removal),
        ("held-out loss at the end", report.distill_loss_final),
    )
    for name, loss in losses:
        if loss is not None:
            table.add_row(name, "", f"{loss:.4f}", "")
    table.add_row("gated against pruned", "", f"{report.max_relative_difference:.1e}", "")
    minutes = sum(report.stage_seconds.values()) / 60
    table.add_row("training", "", f"{minutes:.1f} min", "")
    return table
