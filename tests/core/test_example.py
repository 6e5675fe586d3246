"""Example inputs follow a model to another dtype, and stay what they were."""

import torch
from torch import nn

from l0prune.example import Example, place_of


def test_inputs_follow_a_model_to_its_dtype_and_back() -> None:
    model = nn.Linear(3, 2)
    x, mask, other = torch.randn(4, 3), torch.ones(4, dtype=torch.bool), torch.randn(1, dtype=torch.float64)
    example = Example({"x": (x, mask), "scale": other, "name": "one"})
    before = place_of(model.parameters())
    now = place_of(model.bfloat16().parameters())
    moved = example.moved(before, now).inputs
    assert moved["x"][0].dtype is torch.bfloat16
    # What is not of the model's dtype stays, and so does what is no tensor.
    assert moved["x"][1] is mask
    assert moved["scale"] is other
    assert moved["name"] == "one"
    assert example.inputs["x"][0] is x
    assert example.moved(before, before) is example
    assert example.moved(None, now) is example


def test_the_place_is_that_of_the_first_real_weight() -> None:
    weights = [torch.ones(2, dtype=torch.int64), torch.ones(2, dtype=torch.float64), torch.ones(2)]
    assert place_of(weights) == (torch.device("cpu"), torch.float64)
    assert place_of(weights[:1]) is None


def test_a_forward_pass_that_writes_to_its_inputs_leaves_the_example() -> None:
    example = Example((torch.zeros(2),), forward_fn=lambda model, inputs: inputs[0].add_(1))
    assert [example(nn.Identity()).sum().item() for _ in range(2)] == [2.0, 2.0]
