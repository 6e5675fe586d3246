"""How far two outputs lie apart."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from l0prune.proof.exactness import relative_difference


def test_the_difference_is_relative_to_the_largest_value_of_each_output() -> None:
    expected = {"a": torch.tensor([1.0, -4.0]), "b": [torch.tensor([100.0]), torch.tensor([3])]}
    got = {"a": torch.tensor([1.0, -4.2]), "b": [torch.tensor([101.0]), torch.tensor([9])]}
    assert relative_difference(expected, got) == pytest.approx(0.05)
    assert relative_difference(expected, expected) == 0


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        (torch.ones(3), torch.ones(2)),
        (torch.ones(3), torch.tensor([1.0, 1.0, float("nan")])),
        (torch.tensor([float("nan")]), torch.tensor([float("nan")])),
        (torch.tensor([1.0, float("inf")]), torch.tensor([1.0, -float("inf")])),
        (torch.tensor([1.0, float("inf")]), torch.tensor([1.0, 2.0])),
        ([torch.ones(3), torch.ones(3)], [torch.ones(3)]),
    ],
)
def test_shapes_and_unequal_non_finite_values_differ_beyond_measure(expected: Tensor, got: Tensor) -> None:
    assert relative_difference(expected, got) == float("inf")


def test_equal_infinities_are_no_difference_and_no_scale() -> None:
    masked = torch.tensor([float("-inf"), 2.0, float("inf")])
    assert relative_difference(masked, masked) == 0
    assert relative_difference(masked, masked + torch.tensor([0.0, 0.5, 0.0])) == pytest.approx(0.25)
    assert relative_difference(masked[:1], masked[:1]) == 0


@dataclass
class Answer:
    logits: Tensor
    extra: Any = None


def test_tensors_in_dataclasses_count() -> None:
    expected, got = torch.tensor([4.0, 2.0]), torch.tensor([4.0, 3.0])
    assert relative_difference(Answer(expected), Answer(got)) == pytest.approx(0.25)
    assert relative_difference(
        (expected, [Answer(expected, Answer(expected))]), (expected, [Answer(expected, Answer(got))])
    ) == pytest.approx(0.25)


def test_complex_outputs_count() -> None:
    expected = torch.tensor([1 + 1j, 2.0])
    assert relative_difference(expected, expected + 0.5j) == pytest.approx(0.25)
