"""Figures as PNG files, whatever the names in them are."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SAMPLE_LETTERS = 8
"""What a line's sample in a legend, and the space beside it, take."""


@contextmanager
def picture(path: Path, width: float, height: float) -> Iterator[Any]:
    """A matplotlib figure to draw on, which then becomes a file.

    Args:
        path: A PNG file to write.
        width: Inches.
        height: Inches.
    """
    import matplotlib
    from matplotlib.figure import Figure

    # A dollar in a name begins no formula; letters that the font lacks are boxes, and no reason to warn.
    with matplotlib.rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        figure.savefig(path, dpi=150, format="png")


def legend_below(figure: Any, panels: Iterable[Any], *, columns: int, letters: int) -> None:
    """One legend for all panels, below them: within a panel it would cover some of what is drawn.

    Args:
        figure: The figure.
        panels: Those with named lines.
        columns: Of the legend, at most.
        letters: As many as a line of the legend has room for.
    """
    named = {name: handle for panel in panels for handle, name in zip(*panel.get_legend_handles_labels(), strict=True)}
    if named:
        fit = letters // (max(map(len, named)) + _SAMPLE_LETTERS)
        columns = max(1, min(columns, fit))
        figure.legend([*named.values()], [*named], loc="outside lower center", ncols=columns, fontsize=7)
