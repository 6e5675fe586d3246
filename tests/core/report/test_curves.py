"""Curves of metrics.jsonl: short ones as they are, long ones as means."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from l0prune.report.curves import MOST_POINTS, read_curves


def row(position: int, **values: Any) -> dict[str, Any]:
    return {"position": position, "stage": "joint", "step": position, "steps": 9, "loss": 1.0, "parts": {}, **values}


@given(losses=st.lists(st.none() | st.floats(-1e6, 1e6), max_size=30))
def test_a_short_curve_is_what_was_recorded(losses: list[float | None]) -> None:
    curves = read_curves([row(i, loss=loss) for i, loss in enumerate(losses)])
    expected = [(float(i), loss) for i, loss in enumerate(losses) if loss is not None]
    assert [point for curve in curves.loss for point in zip(curve.steps, curve.values, strict=True)] == expected


@pytest.mark.parametrize("count", [MOST_POINTS, MOST_POINTS + 1, 7 * MOST_POINTS + 3])
def test_a_long_curve_keeps_its_course(count: int) -> None:
    curves = read_curves([row(i, loss=3.0 * i) for i in range(count)])
    (curve,) = curves.loss
    assert len(curve.steps) == -(-count // curves.lines_a_point)
    assert MOST_POINTS / 2 <= len(curve.steps) <= MOST_POINTS
    np.testing.assert_allclose(curve.values, 3 * np.array(curve.steps))
    assert curve.steps[0] < curve.steps[-1] <= count - 1


def test_what_was_not_recorded_is_empty() -> None:
    nothing = read_curves([])
    assert (nothing.loss, nothing.sparsity, nothing.cut_at) == ((), (), None)
    first = read_curves([row(1, parts={"a": 1.0}), row(2, parts={"a": None, "b": 2.0}, multipliers=[0.5, None])])
    assert [(curve.name, curve.values) for curve in first.loss_parts] == [("a", (1.0,)), ("b", (2.0,))]
    assert [(curve.name, curve.values) for curve in first.multipliers] == [("λ1", (0.5,))]
    assert (first.parameters, first.cut_at) == ((), None)
    both = read_curves([row(1), row(2), row(3, stage="further")])
    assert both.cut_at == 2
