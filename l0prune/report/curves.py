"""The lines of metrics.jsonl as curves."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from l0prune.report.figures import Curve

MOST_POINTS = 400
"""A longer curve is shown by the means of neighbouring points."""

_Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Curves:
    """What a run has recorded so far; what it has not is empty."""

    loss: tuple[Curve, ...]
    loss_parts: tuple[Curve, ...]
    sparsity: tuple[Curve, ...]
    """Expected, and asked for."""
    multipliers: tuple[Curve, ...]
    parameters: tuple[Curve, ...]
    """Parameters that are still there."""
    step_seconds: tuple[Curve, ...]
    cut_at: float | None
    """The step after which units were removed; None before the second stage."""
    lines_a_point: int
    """How many lines of metrics.jsonl a point of the longest curve is the mean of."""


def read_curves(rows: Sequence[_Row]) -> Curves:
    """The curves of a run.

    Args:
        rows: Of metrics.jsonl.
    """
    parts = dict.fromkeys(name for row in rows for name in row["parts"])
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    first = [row for row in rows if row["stage"] in stages[:1]]
    pairs = [row.get("multipliers") or () for row in rows]
    # Two, or two for each of several targets.
    number = max((len(pair) for pair in pairs), default=0)
    pairs = [[*pair, *[None] * (number - len(pair))] for pair in pairs]
    return Curves(
        loss=_curves({"loss": [row["loss"] for row in rows]}, rows),
        loss_parts=_curves({name: [row["parts"].get(name) for row in rows] for name in parts}, rows),
        sparsity=_curves({name: [row.get(name) for row in rows] for name in ("sparsity", "target")}, rows),
        multipliers=_curves({f"λ{i + 1}": [pair[i] for pair in pairs] for i in range(number)}, rows),
        parameters=_curves({"parameters": [row.get("parameters") for row in rows]}, rows),
        step_seconds=_curves({"seconds a step": [row.get("step_seconds") for row in rows]}, rows),
        cut_at=first[-1]["position"] if len(stages) > 1 else None,
        lines_a_point=-(-len(rows) // MOST_POINTS),
    )


def _curves(values: Mapping[str, Sequence[float | None]], rows: Sequence[_Row]) -> tuple[Curve, ...]:
    """The curves that have a point."""
    curves = (_curve(name, [row["position"] for row in rows], column) for name, column in values.items())
    return tuple(curve for curve in curves if curve.steps)


def _curve(name: str, steps: Sequence[int], values: Sequence[float | None]) -> Curve:
    points = [(step, value) for step, value in zip(steps, values, strict=True) if value is not None]
    size = -(-len(points) // MOST_POINTS)
    pieces = [points[begin : begin + size] for begin in range(0, len(points), max(1, size))]
    return Curve(
        name=name,
        steps=tuple(float(statistics.fmean(step for step, _ in piece)) for piece in pieces),
        values=tuple(float(statistics.fmean(value for _, value in piece)) for piece in pieces),
    )
