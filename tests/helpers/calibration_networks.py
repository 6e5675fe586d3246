"""Networks whose layers read units in every way that calibration knows, their batches, and a loss."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Grouped(nn.Module):
    """Convolutions in groups, dilated and strided, with a batch norm and a depthwise one."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(16)
        self.b = nn.Conv2d(12, 16, 3, groups=4, stride=2, padding=1, padding_mode="circular", bias=False)
        self.c, self.d = nn.Conv2d(16, 8, (3, 2), dilation=(1, 2)), nn.Conv2d(8, 8, 3, groups=8, padding=1)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.b(torch.relu(self.a(x)))))
        return self.head(self.d(torch.relu(self.c(x))).flatten(1))


class Encoder(nn.Module):
    """torch's own transformer layers, whose attention reads weights past its layers."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
        self.enter, self.head = nn.Linear(8, 8), nn.Linear(8, 4)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(self.enter(x[:, 0])).mean(1))


class Recurrent(nn.Module):
    """Units that no plain layer reads."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.cell, self.head = nn.Linear(8, 6), nn.LSTM(6, 10, batch_first=True), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(self.enter(x[:, 0]))[0][:, -1])


def loss(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def images(seed: int = 0, size: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, 1, 8, 8, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, 4, (size,), generator=generator)


def same(one: nn.Module, other: nn.Module) -> bool:
    """Whether two models have the same parameters and buffers, bit for bit."""
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())
