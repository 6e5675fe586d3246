"""What a network costs, against closed forms."""

import pytest
import torch
from torch import nn

from l0prune import ConfigError, pick_device
from l0prune.counting import macs, parameters


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


def test_devices() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("gpu", "cpu:x", "meta", ""):
        with pytest.raises(ConfigError, match="device cannot be used"):
            pick_device(name)
