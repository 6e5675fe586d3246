"""Operations on inputs that a description states, whatever it states."""

import pytest
from torch import nn

from l0prune.workflows.counting import macs_on

INPUTS = [{"shape": [1, 3], "dtype": "float32"}]


def test_operations_are_those_on_the_stated_inputs() -> None:
    assert macs_on({"inputs": INPUTS, "scale": 2.0}, nn.Linear(3, 5)) == 2 * 3 * 5


@pytest.mark.parametrize(
    "stated",
    [
        None,
        {},
        {"inputs": INPUTS},
        {"inputs": INPUTS, "scale": "2"},
        *({"inputs": INPUTS, "scale": scale} for scale in (1e308, float("inf"), float("nan"))),
        {"inputs": [{"shape": [1, 10**30], "dtype": "float32"}], "scale": 1.0},
        {"inputs": [{"shape": [-1, 3], "dtype": "float32"}], "scale": 1.0},
        {"inputs": [{"shape": [1, 3], "dtype": "float33"}], "scale": 1.0},
    ],
)
def test_what_cannot_be_counted_is_not(stated: object) -> None:
    wide = nn.Linear(3, 10**6, device="meta")
    assert macs_on(stated, wide) is None
