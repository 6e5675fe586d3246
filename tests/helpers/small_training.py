"""A small network to wrap, its batches, and a loop that trains it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from l0prune import ControllerConfig, L0Pruner, wrap
from l0prune.gates import Controller, Gates

FAST = ControllerConfig(kind="projected", warmup_steps=5, look_steps=2)
PUBLISHED = ControllerConfig(learning_rate=0.1, warmup_steps=5, quadratic_start=20.0)
"""Its gates are drawn, and the optimizer trains them."""


class Net(nn.Module):
    """A convolution with batch norm, a residual block, a linear head."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width)
        self.inner, self.outer = nn.Conv2d(width, 2 * width, 1), nn.Conv2d(2 * width, width, 1)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = x + self.outer(F.relu(self.inner(x)))
        return self.head(x.mean((2, 3)))


def batch(seed: int = 0, size: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, 1, 6, 6, generator=generator), torch.randint(0, 4, (size,), generator=generator)


def make(target: float = 0.5, **settings: Any) -> L0Pruner:
    torch.manual_seed(0)
    return wrap(Net(), batch()[0], target_sparsity=target, **{"controller": FAST, **settings})


def train(pruner: L0Pruner, optimizer: torch.optim.Optimizer, steps: int, call: Callable | None = None) -> None:
    model = pruner.model if call is None else call
    pruner.model.train()
    for step in range(steps):
        x, y = batch(step)
        optimizer.zero_grad()
        (F.cross_entropy(model(x), y) + pruner.penalty()).backward()
        optimizer.step()
        pruner.step(optimizer)


def adam(pruner: L0Pruner, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(pruner.parameter_groups(lr=1e-3, **options))


def controller_of(pruner: L0Pruner) -> Controller:
    """What the model carries of its pruner: gates, what brings their size to the target, steps made."""
    return next(module for module in pruner.model.modules() if isinstance(module, Controller))


def gates_of(pruner: L0Pruner) -> Gates:
    return next(module for module in pruner.model.modules() if isinstance(module, Gates))


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
