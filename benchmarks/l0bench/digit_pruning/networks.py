"""Four small networks for images of 8 x 8 pixels and ten classes.

Legend: B batch, T tokens, D width, H heads.
"""

from collections.abc import Callable, Mapping

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _layer(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inside, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU())


class Plain(nn.Module):
    """Four convolutions one after the other, 29 thousand parameters."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.early = nn.Sequential(_layer(1, width), _layer(width, 2 * width))
        self.late = nn.Sequential(_layer(2 * width, 2 * width), _layer(2 * width, 2 * width))
        self.classify = nn.Linear(2 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, 1, 8, 8) -> (B, 10)."""
        x = self.late(F.max_pool2d(self.early(x), 2))
        return self.classify(x.mean((2, 3)))


class Residual(nn.Module):
    """Two residual blocks behind two convolutions."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.enter, self.widen = _layer(1, width), _layer(width, 2 * width)
        self.blocks = nn.ModuleList(
            nn.Sequential(_layer(2 * width, 2 * width), _layer(2 * width, 2 * width)) for _ in range(2)
        )
        self.classify = nn.Linear(2 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, 1, 8, 8) -> (B, 10)."""
        x = F.max_pool2d(self.widen(self.enter(x)), 2)
        for block in self.blocks:
            x = x + block(x)
        return self.classify(x.mean((2, 3)))


class Attention(nn.Module):
    """Self-attention with separate projections.

    Args:
        width: D.
        heads: H.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, width // heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, T, D) -> (B, T, D)."""
        query, key, value = (
            p(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for p in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """A transformer layer that normalises first.

    Args:
        width: D.
        heads: H.
        hidden: Units of the feed-forward part.
    """

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention, self.before = Attention(width, heads), nn.LayerNorm(width)
        self.up, self.down, self.between = nn.Linear(width, hidden), nn.Linear(hidden, width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, T, D) -> (B, T, D)."""
        x = x + self.attention(self.before(x))
        return x + self.down(F.gelu(self.up(self.between(x))))


class Transformer(nn.Module):
    """Two layers over the image's eight rows, a token each."""

    def __init__(self, width: int = 32, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.embed, self.position = nn.Linear(8, width), nn.Parameter(0.5 * torch.randn(8, width))
        self.layers = nn.ModuleList(Layer(width, heads, 4 * width) for _ in range(layers))
        self.norm, self.classify = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, 1, 8, 8) -> (B, 10)."""
        x = self.embed(x[:, 0]) + self.position
        for layer in self.layers:
            x = layer(x)
        return self.classify(self.norm(x).mean(1))


def vit() -> nn.Module:
    """timm's vision transformer: two blocks of 32 features over patches of 2 x 2 pixels."""
    return timm.models.VisionTransformer(
        img_size=8, patch_size=2, in_chans=1, num_classes=10, embed_dim=32, depth=2, num_heads=4, mlp_ratio=4
    )


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "cnn": Plain,
    "residual": Residual,
    "vit": vit,
    "transformer": Transformer,
}
