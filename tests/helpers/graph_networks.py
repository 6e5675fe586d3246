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


class ImageAttention(nn.Module):
    """A U-Net's attention over places of an image, by fixed sizes two functions deep."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, WIDTH)
        self.qkv, self.out = nn.Conv2d(WIDTH, 3 * HEADS * SIZE, 1), nn.Conv2d(HEADS * SIZE, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (_places(part) for part in self.qkv(self.norm(x)).chunk(3, 1))
        y = nn.functional.scaled_dot_product_attention(query, key, value)
        return x + self.out(_image(y, x))


def _places(x: Tensor) -> Tensor:
    return _by_heads(x).transpose(2, 3)


def _by_heads(x: Tensor) -> Tensor:
    return x.reshape(x.shape[0], HEADS, SIZE, x.shape[2] * x.shape[3])


def _image(y: Tensor, like: Tensor) -> Tensor:
    return _of_channels(y.transpose(2, 3), like)


def _of_channels(y: Tensor, like: Tensor) -> Tensor:
    return y.reshape(like.shape[0], HEADS * SIZE, *like.shape[2:])


class AttentionUNet(nn.Module):
    """One level down and up, with attention between."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.down = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, WIDTH, 3, 2, 1)
        self.attention = ImageAttention()
        self.up, self.head = nn.ConvTranspose2d(WIDTH, 8, 2, 2), nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.enter(x).relu()
        deep = self.attention(self.down(first).relu())
        return self.head(torch.cat([first, self.up(deep)], 1))


_TYPED_IN = """
class Typed(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.qkv = nn.Linear(3, 16), nn.Linear(16, 48)
        self.out, self.head = nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x):
        x = self.inner(x)
        B, N, C = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, 4, 4).permute(2, 0, 3, 1, 4)
        y = ((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).reshape(B, N, C)
        return self.head((x + self.out(y)).mean(1))
"""


def typed_in() -> nn.Module:
    """A network whose class has no source, as of one that was typed into an interpreter."""
    scope = {"nn": nn}
    exec(_TYPED_IN, scope)
    return scope["Typed"]()  # type: ignore[operator]
