"""Deep copies of modules that keep what they have computed."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from l0prune.support.modules import copied


class Keeping(nn.Module):
    """Keeps an attention map, as many do, and losses in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.attention = F.relu(self.up(x))
        self.losses = {"sparse": [self.attention.sum()]}
        return self.down(self.attention)


def test_what_a_module_keeps_is_copied_without_its_graph() -> None:
    model, x = Keeping(), torch.randn(4, 3)
    expected = model(x)
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(model)
    twin = copied(model)
    assert torch.equal(twin.attention, model.attention)
    assert torch.equal(twin.losses["sparse"][0], model.losses["sparse"][0])
    assert not twin.attention.requires_grad
    assert model.attention.requires_grad
    assert torch.equal(twin(x), expected)
    assert twin.up.weight is not model.up.weight


def test_a_copy_shares_no_container_with_its_original_whether_empty_or_not() -> None:
    model = Keeping()
    model.seen, model.named, model.picked, model.told = [], {}, set(), [1]
    # One container under two names stays one.
    model.also = model.seen
    twin = copied(model)
    for part, other in zip(model.modules(), twin.modules(), strict=True):
        ours, theirs = vars(part), vars(other)
        assert [*ours] == [*theirs]
        for name, value in ours.items():
            assert type(value) is type(theirs[name])
            if isinstance(value, dict | list | set):
                assert value is not theirs[name], name
    assert twin.also is twin.seen
    assert twin.told == [1]
    twin.register_forward_hook(lambda *_: pytest.fail("of the copy alone"))
    model(torch.randn(4, 3))


def test_a_tensor_that_a_hook_computes_is_not_frozen_into_a_copy() -> None:
    with pytest.warns(FutureWarning):
        model = nn.utils.weight_norm(nn.Linear(3, 2))
    with pytest.raises(RuntimeError, match="deepcopy"):
        copied(model)
