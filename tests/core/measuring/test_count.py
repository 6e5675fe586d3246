"""What a network costs, against closed forms."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from l0prune import ConfigError, pick_device
from l0prune.measuring.count import macs, macs_by_module, parameters


def test_shared_parameters_count_once() -> None:
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    second.weight = first.weight
    assert parameters(nn.Sequential(first, second, nn.Linear(3, 2))) == 9 + 8


def test_macs_of_layers_are_their_products() -> None:
    linear, conv = nn.Linear(5, 7), nn.Conv1d(4, 6, kernel_size=3, stride=2, groups=2)
    assert macs(lambda: linear(torch.randn(2, 9, 5))) == 2 * 9 * 5 * 7
    frames = (20 - 3) // 2 + 1
    assert macs(lambda: conv(torch.randn(2, 4, 20))) == 2 * frames * 6 * (4 // 2) * 3


def test_macs_of_attention_are_its_two_products() -> None:
    batch, heads, frames, width = 2, 3, 10, 4
    q, k, v = (torch.randn(batch, heads, frames, width) for _ in range(3))
    counted = macs(lambda: nn.functional.scaled_dot_product_attention(q, k, v))
    assert counted == batch * heads * 2 * frames**2 * width


class _Residual(nn.Module):
    """A product of its own beside those of its children, one of them called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 5)) for _ in range(2)])
        self.head = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = x + block(x)
        return self.head(x @ x.mT @ x) + self.head(x)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_macs_of_modules_are_their_own_and_add_up(device: str) -> None:
    model, x = _Residual().to(device), torch.randn(2, 9, 5, device=device)
    found = macs_by_module(model, [x])
    rows = 2 * 9
    linears = {f"blocks.{i}.{j}": rows * 35 for i in (0, 1) for j in (0, 1)}
    assert found == {**linears, "head": 2 * rows * 10, "": 2 * 2 * 9 * 9 * 5}
    assert sum(found.values()) == macs(lambda: model(x))


def _weight_normed() -> nn.Module:
    return nn.utils.parametrizations.weight_norm(nn.Conv1d(8, 6, 3))


def _old_weight_normed() -> nn.Module:
    with pytest.warns(FutureWarning, match="weight_norm"):
        return nn.utils.weight_norm(nn.Conv1d(8, 6, 3))


def _spectrally_normed() -> nn.Module:
    return nn.utils.parametrizations.spectral_norm(nn.Conv1d(8, 6, 3))


class _Scale(nn.Module):
    """A module that is called on a parameter, as parametrizations are, and multiplies matrices itself."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.inner = nn.Parameter(torch.randn(20, 20)), nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu_(x @ self.inner(self.weight))


@pytest.mark.parametrize(
    "make", [_weight_normed, _old_weight_normed, _spectrally_normed, _Scale, lambda: nn.Conv1d(8, 6, 3)]
)
def test_macs_are_the_same_under_inference_mode(make: Callable[[], nn.Module]) -> None:
    model, x = make().eval(), torch.randn(2, 8, 20)
    expected = macs(lambda: model(x)), macs_by_module(model, [x])
    assert expected[0] > 0
    with torch.inference_mode():
        assert (macs(lambda: model(x)), macs_by_module(model, [x])) == expected
        made_here = x + 0
        assert macs(lambda: model(made_here.mul_(1))) == expected[0]
    # A run may turn the mode on itself, and a caller may have turned gradients on.
    assert macs(lambda: torch.inference_mode()(model)(x)) == expected[0]
    with torch.enable_grad():
        assert macs(lambda: model(x)) == expected[0]


def test_after_a_forward_pass_that_fails_counts_go_where_they_belong() -> None:
    class Fails(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("on purpose")

    class Catches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fails, self.head = Fails(), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with pytest.raises(ValueError, match="on purpose"):
                self.fails(x)
            return self.head(x @ x.mT @ x)

    assert macs_by_module(Catches(), [torch.randn(4, 8)]) == {"": 2 * 4 * 4 * 8, "head": 4 * 24}


def test_devices() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("gpu", "cpu:x", "meta", ""):
        with pytest.raises(ConfigError, match="device cannot be used"):
            pick_device(name)
