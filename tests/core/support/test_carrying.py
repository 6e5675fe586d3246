"""What pruning returns is opened, copied, scripted and saved again by a process that has none of this library."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from opened_alone import opened_alone
from torch import nn

import l0prune
from l0prune import Bypassed, PruneGroup
from l0prune.layers import SlimMultiheadAttention
from l0prune.support import output_tensors


def encoder() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 4, 16, dropout=0.1, batch_first=True), 2)


def normed() -> nn.Module:
    norms = nn.LayerNorm(16), nn.RMSNorm(16), nn.GroupNorm(2, 16), nn.BatchNorm1d(16)
    return nn.Sequential(nn.Linear(8, 16), *(m for norm in norms for m in (norm, nn.Linear(16, 16))), nn.Linear(16, 2))


def convolutions() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 2, 1))


def recurrent(kind: type[nn.RNNBase], **more: Any) -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), kind(16, 8, **more))


def followed() -> nn.Module:
    return torch.fx.symbolic_trace(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)))


@pytest.mark.parametrize(
    ("make", "shape", "script"),
    [
        (encoder, (2, 5, 8), True),
        (normed, (4, 8), True),
        (convolutions, (2, 3, 6, 6), True),
        (lambda: recurrent(nn.LSTM, num_layers=2, bidirectional=True), (5, 2, 8), False),
        (lambda: recurrent(nn.GRU), (5, 2, 8), False),
        (followed, (4, 8), True),
    ],
)
def test_what_prune_returns_is_opened_alone(
    make: Callable[[], nn.Module], shape: tuple[int, ...], script: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape)
    pruned = l0prune.prune(make(), x, target_sparsity=0.3)
    expected = output_tensors(pruned(x))
    for outputs in opened_alone(pruned, (x,), tmp_path, script=script):
        for got, tensor in zip(output_tensors(outputs), expected, strict=True):
            torch.testing.assert_close(got, tensor)


def test_attention_and_emptied_blocks_bring_their_classes(tmp_path: Path) -> None:
    x = torch.randn(2, 5, 8)
    pruned = l0prune.prune(encoder(), x, target_sparsity=0.4, importance=heads_first)
    assert any(type(module) is SlimMultiheadAttention for module in pruned.modules())
    network = nn.Sequential(pruned, Bypassed())
    for outputs in opened_alone(network, (x,), tmp_path):
        assert torch.equal(outputs, torch.zeros(()))
    for outputs in opened_alone(pruned, (x,), tmp_path, script=True):
        torch.testing.assert_close(outputs, pruned(x))


def heads_first(model: nn.Module, groups: Sequence[PruneGroup]) -> dict[str, np.ndarray]:
    return {g.name: np.arange(g.units) + 100.0 * (g.kind != "head") for g in groups}
