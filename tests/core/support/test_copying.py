"""Deep copies of modules that keep what they have computed."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
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


class OwnCopy(nn.Linear):
    def __deepcopy__(self, memo: dict[int, Any]) -> "OwnCopy":
        made = OwnCopy(self.in_features, self.out_features)
        made.told = "copied"
        return made


class OwnState(nn.Linear):
    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "told": "kept"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.opened = True


class Forwarding(nn.Module):
    """Looks up at another module what it has not itself, `__deepcopy__` too."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = OwnCopy(3, 2)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)


def test_classes_with_a_way_of_their_own_are_copied_as_deepcopy_copies_them() -> None:
    model, weighted = nn.Module(), nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    parts = [OwnCopy(3, 2), OwnState(3, 2), Forwarding(), weighted, nn.Linear(3, 2), nn.LSTM(3, 2)]
    # One module under two names, and one that knows another outside of its children.
    model.parts, model.again, model.none = nn.ModuleList(parts), parts[0], None
    model.register_module("absent", None)
    parts[1].register_forward_hook(lambda *_: None)
    vars(parts[1])["seen"] = [parts[4], {"weight": parts[4].bias}]
    expected, twin = copy.deepcopy(model), copied(model)
    for one, other in zip(expected.modules(), twin.modules(), strict=True):
        ours, theirs = vars(one), vars(other)
        assert type(one) is type(other)
        assert [*ours] == [*theirs]
        for name, value in ours.items():
            if not isinstance(value, dict | list | set | Tensor | nn.Module):
                assert value == theirs[name], name
    assert twin.again is twin.parts[0]
    assert (twin.again.told, twin.parts[1].told, twin.parts[1].opened) == ("copied", "kept", True)
    assert twin.parts[1].seen[0] is twin.parts[4] is not parts[4]
    assert twin.parts[1].seen[1]["weight"] is twin.parts[4].bias is not parts[4].bias
    for name, tensor in twin.state_dict().items():
        # That class draws new weights.
        if not name.startswith(("again", "parts.0", "parts.2")):
            assert torch.equal(tensor, model.state_dict()[name])
            assert tensor.data_ptr() != model.state_dict()[name].data_ptr()
