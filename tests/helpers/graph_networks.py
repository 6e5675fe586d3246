"""Networks whose own forward pass fixes widths in ways that writing methods anew does not reach."""

import torch
from torch import Tensor, nn

BATCH, LENGTH, WIDTH, HEADS, SIZE = 2, 5, 16, 4, 4


def _heads(x: Tensor) -> Tensor:
    """(B, N, C) -> (B, H, N, D), by numbers in a function that another one calls."""
    return _laid_out(x).transpose(1, 2)


def _laid_out(x: Tensor) -> Tensor:
    return x.reshape(x.shape[0], x.shape[1], HEADS, SIZE)


class FixedAttention(nn.Module):
    """Attention whose sizes stand in functions of functions, with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, HEADS * SIZE) for _ in range(3))
        self.out = nn.Linear(HEADS * SIZE, WIDTH)
        self.drop = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (_heads(part(x)) for part in (self.query, self.key, self.value))
        weights = self.drop((query @ key.transpose(-2, -1) / SIZE**0.5).softmax(-1))
        return self.out(_joined(weights @ value))


def _joined(x: Tensor) -> Tensor:
    return _flat(x.transpose(1, 2))


def _flat(x: Tensor) -> Tensor:
    return x.reshape(x.shape[0], x.shape[1], WIDTH)


class DropPath(nn.Module):
    """A branch that is left out for some examples of a batch, in training mode alone."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = x.new_empty((x.shape[0], *[1] * (x.ndim - 1))).bernoulli_(0.5)
        return x * kept.div_(0.5)


class FixedNetwork(nn.Module):
    """A transformer block of fixed sizes around a batch norm, for sequences (B, N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, WIDTH)
        self.batch_norm = nn.BatchNorm1d(WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.attention = FixedAttention()
        self.drop_path = DropPath()
        self.up, self.down = nn.Linear(WIDTH, 24), nn.Linear(12, WIDTH)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x)
        x = self.batch_norm(x.transpose(1, 2)).transpose(1, 2)
        x = x + self.drop_path(self.attention(self.norm(x)))
        x = x + self.drop_path(self.down(_parts(self.up(x))))
        return self.head(x.mean(1))


def _parts(x: Tensor) -> Tensor:
    """A gated unit by a split of fixed sizes, in a function of a function."""
    return _split(x)


def _split(x: Tensor) -> Tensor:
    gate, value = x.split([12, 12], -1)
    return gate.sigmoid() * value


def sequences(batch: int = BATCH, length: int = LENGTH) -> Tensor:
    """Examples (B, N, 3)."""
    return torch.randn(batch, length, 3, generator=torch.Generator().manual_seed(batch * length))
