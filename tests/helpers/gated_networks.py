"""Small networks of many kinds of layer, with gates on them; and gates that scale one tensor at a time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from small_training import gates_of
from torch import Tensor, nn
from torch.nn import functional as F

from l0prune import ControllerConfig, GateConfig, L0Pruner, wrap
from l0prune.gates.fused_gating import FusedGating


class Residual(nn.Module):
    """Blocks whose norms see a residual width, on vectors."""

    def __init__(self, norm: Callable[[int], nn.Module], width: int = 6, blocks: int = 3) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, width), nn.Linear(width, 3)
        self.norms = nn.ModuleList(norm(width) for _ in range(blocks))
        self.up = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(blocks))
        self.down = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for norm, up, down in zip(self.norms, self.up, self.down, strict=True):
            x = x + down(F.gelu(up(norm(x))))
        return self.last(x)


class Images(nn.Module):
    """Convolutions with batch and group norms, a large weight, a linear layer behind flattened channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.inner, self.outer = nn.Conv2d(8, 160, 1, bias=False), nn.Conv2d(160, 8, 5, padding=2)
        self.grouped, self.final = nn.GroupNorm(2, 8), nn.Conv2d(8, 4, 3)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm(self.stem(x)))
        x = x + self.outer(F.gelu(self.inner(x)))
        return self.head(self.final(F.gelu(self.grouped(x))).flatten(1))


class Tied(nn.Module):
    """One weight in two layers, and one layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.one, self.two, self.last = (nn.Linear(n, m) for n, m in ((4, 6), (6, 6), (6, 6), (6, 3)))
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.first(x))
        return self.last(F.gelu(self.two(F.gelu(self.one(F.gelu(self.one(x)))))))


def mlp(depth: int = 5, width: int = 6) -> nn.Module:
    layers = [part for _ in range(depth) for part in (nn.Linear(width, width), nn.GELU())]
    return nn.Sequential(nn.Linear(4, width), nn.GELU(), *layers, nn.Linear(width, 3))


def attention() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
    return nn.Sequential(nn.Linear(4, 8), encoder, nn.Linear(8, 3))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(5, 3)
        self.middle = nn.LSTM(6, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(F.gelu(self.first(x)))[0])


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "deep and narrow": (mlp, (5, 4)),
    "layer norms": (lambda: Residual(nn.LayerNorm), (5, 4)),
    "RMS norms": (lambda: Residual(nn.RMSNorm), (5, 4)),
    "group norms": (lambda: Residual(lambda width: nn.GroupNorm(2, width)), (5, 4)),
    "images": (Images, (2, 3, 4, 4)),
    "tied weights": (Tied, (5, 4)),
    "attention": (attention, (2, 3, 4)),
    "recurrent": (Recurrent, (2, 3, 4)),
}


def gated(name: str, seed: int = 0, **settings: Any) -> tuple[L0Pruner, Tensor]:
    torch.manual_seed(seed)
    build, shape = NETWORKS[name]
    network = build().double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(shape, dtype=torch.float64)
    return wrap(
        network, x, target_sparsity=0.4, gates=GateConfig(drop_rate=0.4), controller=ControllerConfig(), **settings
    ), x


@contextmanager
def one_by_one() -> Iterator[None]:
    """Every tensor and norm is gated by itself meanwhile."""
    with mock.patch.multiple(FusedGating, weight=lambda *_: None, opened=lambda *_: None):
        yield


def random_values(count: int, seed: int) -> Tensor:
    """Gate values of which some are 0, some 1 and some between, as in a draw."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(count, generator=generator, dtype=torch.float64) * 1.6 - 0.3).clamp(0, 1)


def outputs_and_gradients(pruner: L0Pruner, x: Tensor, values: Tensor) -> list[Tensor]:
    z = values.clone().requires_grad_()
    pruner.model.zero_grad()
    with gates_of(pruner).fixed(z):
        y = pruner.model(x)
        y.pow(2).sum().backward()
    assert z.grad is not None
    return [y.detach(), z.grad, *(p.grad for p in pruner.model.parameters() if p.grad is not None)]
