"""Quality against size over several runs: a picture for a paper, and its numbers."""

import csv
import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from l0prune.errors import ConfigError, RunError, nearest
from l0prune.report.figures import Drawing, ParetoPoint, pareto_figure
from l0prune.report.numbers import Number, numbers
from l0prune.report.read import Run, read_run
from l0prune.support import assembled, known_arguments, listed, printable, shortest_endings

_MOST_LETTERS = 60
"""Of a setting in a warning."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One run in both measures."""

    run: str
    path: str
    x: float
    y: float
    y_deviation: float | None
    """None where y is no mean, or its deviation is unknown."""
    dominated_by: str | None
    """The name of a run that is as good or better in both, and better in one; None on the front."""


@dataclass(frozen=True, kw_only=True)
class Pareto:
    """What was drawn, and where."""

    x: str
    """The name of what the horizontal axis counts."""
    y: str
    points: tuple[Point, ...]
    """In the order of the runs."""
    warnings: tuple[str, ...]
    """Why runs may not compare."""
    png: str
    svg: str
    csv: str

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)


@known_arguments
def write_pareto(runs: Sequence[str | Path], out: str | Path, *, x: str = "params", y: str = "loss") -> Pareto:
    """Draw the quality of finished runs against their size, and mark those that another run dominates.

    A run dominates another if it is as good or better in both measures, and better in one. Less is better, but for
    scores whose evaluation says otherwise, and for `speedup`.

    Args:
        runs: Run directories.
        out: A folder to make: pareto.png, pareto.svg and pareto.csv, all of them or none.
        x: What the horizontal axis counts: params, macs, latency (of bench.json, else as measured at the cut),
            latency-at-cut, speedup, training-seconds, file_bytes, peak_memory_bytes, a metric of one of several
            targets, or what a metric of one's own has measured.
        y: The same for the vertical axis: loss (held out, at the end), loss:PART, or a task of evaluation.json.

    Returns:
        Each run's numbers. If runs may not compare, for example because their data differ, this is warned of as well.

    Raises:
        ConfigError: Both axes are the same, or nothing says whether more of a score is better.
        RunError: There is no run, a run lacks one of the numbers, or `out` is there already or cannot be written.
    """
    paths = list({Path(run).resolve(): Path(run) for run in runs}.values())
    if not paths:
        raise RunError("no run to draw", expected="one run directory or more")
    if x == y:
        raise ConfigError("both axes are the same", where="x and y", got=x, expected="two numbers of the runs")
    read = [read_run(path) for path in paths]
    found = [numbers(run) for run in read]
    names = shortest_endings([str(path.resolve()) for path in paths])
    labels = [printable(name) for name in names.values()]
    columns = {axis: _column(axis, read, found) for axis in (x, y)}
    more = {axis: _more_is_better(axis, column) for axis, column in columns.items()}
    costs = [
        tuple(-column[i].value if more[axis] else column[i].value for axis, column in columns.items())
        for i in range(len(read))
    ]
    points = tuple(
        Point(
            run=label,
            path=str(path),
            x=columns[x][i].value,
            y=columns[y][i].value,
            y_deviation=columns[y][i].deviation,
            dominated_by=None if other is None else labels[other],
        )
        for i, (label, path, other) in enumerate(zip(labels, paths, dominators(costs), strict=True))
    )
    said = tuple(line for axis, column in columns.items() for line in _differences(axis, labels, column))
    for line in said:
        warnings.warn(line, stacklevel=3)  # Past `known_arguments`.
    drawn = _drawing(points, columns[x][0], columns[y][0], more_across=more[x])
    folder = Path(out)
    with assembled(folder) as place:
        place.mkdir()
        (place / "pareto.png").write_bytes(drawn.png)
        (place / "pareto.svg").write_bytes(drawn.svg_file)
        (place / "pareto.csv").write_text(_table(points, x, y), encoding="utf-8", newline="")
    files = {kind: str(folder / f"pareto.{kind}") for kind in ("png", "svg", "csv")}
    return Pareto(x=x, y=y, points=points, warnings=said, **files)


def dominators(costs: Sequence[tuple[float, ...]]) -> list[int | None]:
    """For each point the number of one that dominates it; None for those that none dominates.

    Args:
        costs: (N, 2) of which less is better.
    """
    found: list[int | None] = [None] * len(costs)
    best: int | None = None
    # All that can dominate a point come before it. Of them the lowest one does, unless it is above or equal.
    for i in sorted(range(len(costs)), key=lambda i: costs[i]):
        if best is None or costs[i][1] < costs[best][1]:
            best = i
        elif costs[i] != costs[best]:
            found[i] = best
    return found


def _column(axis: str, runs: Sequence[Run], found: Sequence[Mapping[str, Number]]) -> list[Number]:
    """The number of each run.

    Raises:
        RunError: One lacks it.
    """
    for run, own in zip(runs, found, strict=True):
        if axis not in own:
            if run.report is None:
                hint = "go on with it by --resume, or leave it out"
                raise RunError(f"not finished: the run has no {axis!r}", where=run.path, hint=hint)
            expected, hint = f"one of {', '.join(own)}", _hint(axis, own)
            raise RunError("no such number of the run", where=run.path, got=axis, expected=expected, hint=hint)
    return [own[axis] for own in found]


def _hint(axis: str, own: Mapping[str, Number]) -> str:
    if axis.startswith("latency") and "latency" not in own:
        return "write bench.json into the run's folder by `l0prune bench RUN --json`"
    return nearest(axis, own, or_all=False) or "scores come from evaluation.json in the run's folder"


def _more_is_better(axis: str, column: Sequence[Number]) -> bool:
    said = {number.more_is_better for number in column} - {None}
    if len(said) != 1:
        got = "both" if said else "nothing"
        expected = "higher_is_better, true or false, for the task in evaluation.json"
        raise ConfigError("unknown whether more is better", where=axis, got=got, expected=expected)
    return said == {True}


def _differences(axis: str, labels: Sequence[str], column: Sequence[Number]) -> list[str]:
    """A line for each thing in which the numbers' bases differ."""
    lines = []
    for key in dict.fromkeys(key for number in column for key in number.basis):
        values: dict[str, str] = {}
        for label, number in zip(labels, column, strict=True):
            # What an older run does not say need not differ.
            if number.basis.get(key):
                values.setdefault(number.basis[key], label)
        if len(values) > 1:
            words = listed((f"{_short(value)} in {label}" for value, label in values.items()), 3)
            lines.append(f"{axis} may not compare: {key} differs ({words})")
    return lines


def _short(text: str) -> str:
    text = printable(text)
    return text if len(text) <= _MOST_LETTERS else f"{text[:_MOST_LETTERS]}..."


def _drawing(points: Sequence[Point], across: Number, up: Number, *, more_across: bool) -> Drawing:
    shown = [
        ParetoPoint(
            label=point.run, x=point.x, y=point.y, deviation=point.y_deviation, dominated=point.dominated_by is not None
        )
        for point in points
    ]
    title = f"{up.counts} against {across.counts}"
    return pareto_figure("pareto", title, shown, across=across.counts, up=up.counts, more_across=more_across)


def _table(points: Sequence[Point], x: str, y: str) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", "path", printable(x), printable(y), f"{printable(y)} deviation", "dominated by"])
    for point in points:
        deviation = "" if point.y_deviation is None else point.y_deviation
        writer.writerow([point.run, printable(point.path), point.x, point.y, deviation, point.dominated_by or ""])
    return text.getvalue()
