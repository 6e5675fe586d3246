"""Discovery in layers, and in what forward passes do to their features."""

from typing import Any

import pytest
import torch
from small_networks import TOKENS, Case, chain, check_case, conv, linear, on_images, on_rows, on_steps, parameter, up
from torch import Tensor, nn
from torch.nn import functional as F


def shuffled(m: Any, x: Tensor) -> Tensor:
    x = m.a(x)
    n, c, h, w = x.shape
    return m.b(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))


def halves(m: Any, x: Tensor) -> Tensor:
    one, other = m.a(x).chunk(2, dim=-1)
    return m.b(one * torch.sigmoid(other))


def uneven(m: Any, x: Tensor) -> Tensor:
    h = m.a(x)
    return m.b(h[..., : m.hidden_size]) + m.c(h[..., m.hidden_size :])


class OwnNorm(nn.Module):
    """An RMS norm as many a repository writes its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), 1e-6

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


def joined(m: Any, x: Tensor) -> Tensor:
    return m.c(torch.tanh(m.norm(torch.cat([m.a(x), m.b(x)], 1))))


PLACES = torch.tensor([0, 2, 1, 1, 0])


def picked(m: Any, x: Tensor) -> Tensor:
    h, places = torch.tanh(m.a(x)), m.s(x).squeeze(-1).topk(3, 1).indices
    return m.b(h.gather(1, places[..., None].expand(-1, -1, h.shape[-1])))


def spread(h: Tensor) -> Tensor:
    return PLACES[None, :, None].expand(h.shape)


def turned(h: Tensor) -> Tensor:
    """Each step and the one before as a complex number, turned by a quarter."""
    pairs = torch.stack([h, h.roll(1, 1)], -1)
    return torch.view_as_real(torch.view_as_complex(pairs) * 1j)[..., 0]


LAYERS: dict[str, Case] = {
    "concatenation": on_images(
        lambda m, x: m.c(torch.relu(torch.cat([m.a(x), m.b(x)], 1))),
        "4 conv, 6 conv", a=conv(3, 4), b=conv(3, 6), c=conv(10, 2),
    ),
    "an input concatenated with features": on_images(
        lambda m, x: m.b(torch.cat([x, m.a(x), x], 1)), "4 conv", a=conv(3, 4), b=conv(10, 2)
    ),
    "flatten before a linear layer": on_images(
        lambda m, x: m.c(torch.tanh(m.b(torch.relu(m.a(x)).flatten(1)))),
        "4 conv, 5 unit", a=conv(3, 4, 3), b=linear(64, 5), c=linear(5, 2),
    ),
    "pooling before a linear layer": on_images(
        lambda m, x: m.b(F.adaptive_avg_pool2d(m.a(x), 1).flatten(1)), "4 conv", a=conv(3, 4, 3), b=linear(4, 2)
    ),
    "halves of a gated linear unit": on_rows(halves, "6 unit", a=linear(3, 12), b=linear(6, 2)),
    "F.glu": on_rows(lambda m, x: m.b(F.glu(m.a(x))), "6 unit", a=linear(3, 12), b=linear(6, 2)),
    "nn.GLU over channels": on_images(
        lambda m, x: m.b(m.glu(m.a(x))), "6 conv", a=conv(3, 12), glu=lambda: nn.GLU(1), b=conv(6, 2)
    ),
    "SwiGLU": on_rows(
        lambda m, x: m.c(F.silu(m.a(x)) * m.b(x)), "6 unit", a=linear(3, 6), b=linear(3, 6), c=linear(6, 2)
    ),
    "a split into unequal parts": on_rows(
        uneven, "4 unit, 8 unit",
        a=linear(3, 12), b=linear(4, 2), c=linear(8, 2), hidden_size=lambda: 4,
    ),
    "a depthwise convolution with multiplier 2": on_images(
        chain, "4 conv", a=conv(3, 4), b=conv(4, 8, 3, groups=4), c=conv(8, 2)
    ),
    "a grouped convolution": on_images(
        chain, "2 conv, 3 conv", a=conv(3, 8), b=conv(8, 12, 3, groups=4), c=conv(12, 2)
    ),
    "a transposed convolution": on_images(chain, "4 conv, 6 conv", a=conv(3, 4), b=up(4, 6), c=conv(6, 2)),
    "a grouped transposed convolution": on_images(
        chain, "4 conv, 3 conv", a=conv(3, 8), b=up(8, 6, groups=2), c=conv(6, 2)
    ),
    "a depthwise transposed convolution": on_images(chain, "4 conv", a=conv(3, 4), b=up(4, 4, groups=4), c=conv(4, 2)),
    "pixel shuffle": on_images(
        lambda m, x: m.b(F.pixel_shuffle(m.a(x), 2)), "4 conv", a=conv(3, 16), b=conv(4, 2)
    ),
    "a residual stream": on_images(
        lambda m, x: m.d((h := m.a(x)) + m.c(torch.relu(m.b(h)))),
        "6 conv, 8 conv", a=conv(3, 6), b=conv(6, 8), c=conv(8, 6), d=conv(6, 2),
    ),
    "a residual stream with the input in it": on_rows(
        lambda m, x: m.c(x + m.b(torch.tanh(m.a(x)))), "8 unit", "meets fixed features",
        a=linear(3, 8), b=linear(8, 3), c=linear(3, 2),
    ),
    "channel shuffle": on_images(shuffled, "4 conv", a=conv(3, 8), b=conv(8, 2)),
    "nn.ChannelShuffle": on_images(
        lambda m, x: m.b(m.shuffle(m.a(x))), "4 conv", a=conv(3, 8), shuffle=lambda: nn.ChannelShuffle(2), b=conv(8, 2)
    ),
    "squeeze and excitation": on_images(
        lambda m, x: m.d((h := m.a(x)) * torch.sigmoid(m.c(torch.relu(m.b(h.mean((2, 3), keepdim=True)))))),
        "6 conv, 4 conv", a=conv(3, 6), b=conv(6, 4), c=conv(4, 6), d=conv(6, 2),
    ),
    "in-place operators": on_rows(
        lambda m, x: m.c(F.relu_(m.a(x).add_(m.b(x)).mul_(m.scale))), "6 unit",
        a=linear(3, 6), b=linear(3, 6), scale=parameter(6), c=linear(6, 2),
    ),
    "a choice between two branches": on_rows(
        lambda m, x: m.c(torch.where(m.a(x) > 0, m.a(x), m.b(x))), "6 unit",
        a=linear(3, 6), b=linear(3, 6), c=linear(6, 2),
    ),
    "a class token and positions": on_steps(
        lambda m, x: m.b(torch.cat([m.token.expand(len(x), -1, -1), m.a(x)], 1) + m.places), "6 unit",
        a=linear(3, 6), token=parameter(1, 1, 6), places=parameter(1, 6, 6), b=linear(6, 2),
    ),
    "circular and reflected padding": on_images(
        chain, "4 conv, 6 conv",
        a=conv(3, 4, 3, padding=1, padding_mode="circular"),
        b=conv(4, 6, 3, padding=1, padding_mode="reflect"), c=conv(6, 2),
    ),
    "dropout of whole channels": on_images(
        chain, "6 conv", a=conv(3, 6), b=nn.Dropout2d, c=conv(6, 2)
    ),
    "PReLU": on_rows(chain, "6 unit", a=linear(3, 6), b=lambda: nn.PReLU(6), c=linear(6, 2)),
    "BatchNorm1d": on_rows(chain, "6 unit", a=linear(3, 6), b=lambda: nn.BatchNorm1d(6), c=linear(6, 2)),
    "BatchNorm2d": on_images(chain, "6 conv", a=conv(3, 6), b=lambda: nn.BatchNorm2d(6), c=conv(6, 2)),
    "InstanceNorm2d": on_images(
        chain, "6 conv", a=conv(3, 6), b=lambda: nn.InstanceNorm2d(6, affine=True), c=conv(6, 2)
    ),
    "LayerNorm": on_rows(chain, "6 unit", a=linear(3, 6), b=lambda: nn.LayerNorm(6), c=linear(6, 2)),
    "LayerNorm, its input by keyword": on_rows(
        lambda m, x: m.c(m.b(input=m.a(input=x))), "6 unit", a=linear(3, 6), b=lambda: nn.LayerNorm(6), c=linear(6, 2)
    ),
    "LayerNorm over channels brought to the end": on_images(
        lambda m, x: m.c(m.b(m.a(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)), "6 conv",
        a=conv(3, 6), b=lambda: nn.LayerNorm(6), c=conv(6, 2),
    ),
    "LayerNorm used twice": on_rows(
        lambda m, x: m.c(m.norm(m.a(x)) + torch.tanh(m.norm(m.b(x)))), "6 unit",
        a=linear(3, 6), b=linear(3, 6), norm=lambda: nn.LayerNorm(6), c=linear(6, 2),
    ),
    "LayerNorm without a bias": on_rows(
        chain, "6 unit", a=linear(3, 6), b=lambda: nn.LayerNorm(6, bias=False), c=linear(6, 2)
    ),
    "LayerNorm without a weight": on_rows(
        chain, "", "normalised without a weight",
        a=linear(3, 6), b=lambda: nn.LayerNorm(6, elementwise_affine=False), c=linear(6, 2),
    ),
    "LayerNorm over channels and places": on_images(
        chain, "", "normalised together with other dimensions",
        a=conv(3, 6), b=lambda: nn.LayerNorm([6, 6, 6]), c=conv(6, 2),
    ),
    "F.layer_norm": on_rows(
        lambda m, x: m.b(F.layer_norm(m.a(x), (6,), m.w)), "", "normalised outside a norm module",
        a=linear(3, 6), w=parameter(6), b=linear(6, 2),
    ),
    "GroupNorm with 4 groups": on_images(
        chain, "3 conv", a=conv(3, 12), b=lambda: nn.GroupNorm(4, 12), c=conv(12, 2)
    ),
    "GroupNorm with 1 group": on_images(chain, "6 conv", a=conv(3, 6), b=lambda: nn.GroupNorm(1, 6), c=conv(6, 2)),
    "GroupNorm with a group a channel": on_images(
        chain, "6 conv", a=conv(3, 6), b=lambda: nn.GroupNorm(6, 6), c=conv(6, 2)
    ),
    "GroupNorm over an uneven concatenation": on_images(
        joined, "4 conv", "everything here has to go together",
        a=conv(3, 4), b=conv(3, 6), norm=lambda: nn.GroupNorm(2, 10), c=conv(10, 2),
    ),
    "GroupNorm at odds with a grouped convolution": on_images(
        lambda m, x: m.c(m.b(m.norm(m.a(x)))), "4 conv", "everything here has to go together",
        a=conv(3, 12), norm=lambda: nn.GroupNorm(4, 12), b=conv(12, 12, groups=3), c=conv(12, 2),
    ),
    "nn.RMSNorm": on_rows(chain, "6 unit", a=linear(3, 6), b=lambda: nn.RMSNorm(6), c=linear(6, 2)),
    "a repository's own RMS norm": on_rows(chain, "6 unit", a=linear(3, 6), b=lambda: OwnNorm(6), c=linear(6, 2)),
    "softmax over the units": on_rows(
        lambda m, x: m.b(torch.softmax(m.a(x), -1)), "", "normalised or summed over", a=linear(3, 6), b=linear(6, 2)
    ),
    "plain parameters that scale and shift": on_rows(
        lambda m, x: m.b(m.a(x) * m.scale + m.shift), "6 unit",
        a=linear(3, 6), scale=parameter(6), shift=parameter(1, 6), b=linear(6, 2),
    ),
    "a plain parameter as a matrix": on_rows(
        lambda m, x: torch.tanh(x @ m.a) @ m.b, "6 unit", a=parameter(3, 6), b=parameter(6, 2)
    ),
    "a batched product with experts": on_rows(
        lambda m, x: (torch.tanh(x @ m.a) @ m.b).sum(0), "6 unit", a=parameter(4, 3, 6), b=parameter(4, 6, 2)
    ),
    "a convolution with weight norm": on_images(
        chain, "6 conv", "is multiplied with fixed features in b",
        a=lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 1)),
        b=lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 6, 3)),
        c=conv(6, 2),
    ),
    "a depthwise convolution with weight norm": on_images(
        chain, "4 conv",
        a=conv(3, 4), b=lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 8, 3, groups=4)), c=conv(8, 2),
    ),
    "a transposed convolution with weight norm": on_images(
        chain, "4 conv", "is normalised with its weight",
        a=conv(3, 4), b=lambda: nn.utils.parametrizations.weight_norm(nn.ConvTranspose2d(4, 6, 2)), c=conv(6, 2),
    ),
    "one linear layer used twice": on_rows(
        lambda m, x: m.c(m.b(torch.tanh(m.b(torch.tanh(m.a(x)))))), "6 unit",
        a=linear(3, 6), b=linear(6, 6), c=linear(6, 2),
    ),
    "an operator without a rule": on_rows(
        lambda m, x: m.b(torch.tanh(m.a(x))) + torch.linalg.det(m.c(x).view(-1, 2, 2))[:, None] * m.d(m.e(x)),
        "6 unit, 5 unit", "det",
        a=linear(3, 6), b=linear(6, 2), c=linear(3, 4), d=linear(5, 2), e=linear(3, 5),
    ),
    "a Fourier transform over the units": on_rows(
        lambda m, x: m.b(torch.fft.rfft(m.a(x)).real), "", "fft", a=linear(3, 6), b=linear(4, 2)
    ),
    "an index that depends on the data": on_rows(
        lambda m, x: m.b((h := m.a(x)).gather(1, h.argsort(1))), "", "sort", a=linear(3, 6), b=linear(6, 2)
    ),
    "units in reversed order": on_rows(
        lambda m, x: m.b(torch.tanh(m.a(x)).flip(1)), "6 unit", a=linear(3, 6), b=linear(6, 2)
    ),
    "units rolled": on_rows(
        lambda m, x: m.b(m.a(x).roll(2, 1)), "", "changes its order", a=linear(3, 6), b=linear(6, 2)
    ),
    "steps rolled and reversed": on_steps(
        lambda m, x: m.b(torch.tanh(m.a(x)).roll(2, 1).flip(1)), "6 unit", a=linear(3, 6), b=linear(6, 2)
    ),
    "steps picked by their score": on_steps(
        picked, "6 unit", "nothing that can be gated reads it", a=linear(3, 6), s=linear(3, 1), b=linear(6, 2)
    ),
    "units of which the largest stay": on_rows(
        lambda m, x: m.b(m.a(x).topk(3, -1).values), "", "sorted or ranked", a=linear(3, 6), b=linear(3, 2)
    ),
    "steps in order of their values": on_steps(
        lambda m, x: m.b(m.a(x).sort(1).values), "6 unit", a=linear(3, 6), b=linear(6, 2)
    ),
    "steps added up in places": on_steps(
        lambda m, x: m.b(x.new_zeros(2, 3, m.a.out_features).index_add(1, PLACES, torch.tanh(m.a(x)))), "6 unit",
        a=linear(3, 6), b=linear(6, 2),
    ),
    "steps scattered over others": on_steps(
        lambda m, x: m.b(torch.tanh(m.a(x)).scatter_add(1, spread(m.c(x)), m.c(x))), "6 unit",
        a=linear(3, 6), c=linear(3, 6), b=linear(6, 2),
    ),
    "steps scattered over nothing": on_steps(
        lambda m, x: m.b((h := torch.tanh(m.a(x))).new_zeros(h.shape).scatter_(1, spread(h), h)), "6 unit",
        a=linear(3, 6), b=linear(6, 2),
    ),
    "units scattered": on_rows(
        lambda m, x: m.b((h := m.a(x)).scatter_add(1, torch.tensor([[0, 1, 1, 2, 2, 2]] * 4), h)), "",
        "picked out by index", a=linear(3, 6), b=linear(6, 2),
    ),
    "pixels of a channel as channels": on_images(
        lambda m, x: m.b(F.pixel_unshuffle(torch.tanh(m.a(x)), 2)), "4 conv", a=conv(3, 4), b=conv(16, 2)
    ),
    "complex numbers made of two steps": on_steps(
        lambda m, x: m.b(turned(torch.tanh(m.a(x)))), "6 unit", a=linear(3, 6), b=linear(6, 2)
    ),
    "units picked out by a tensor": on_rows(
        lambda m, x: m.b(m.a(x)[:, torch.tensor([2, 0, 5])]), "", "picked out by index", a=linear(3, 6), b=linear(3, 2)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_layers_in_a_small_network(name: str) -> None:
    check_case(LAYERS[name])


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_embeddings(mode: str) -> None:
    check_case(
        Case(
            lambda m, tokens: m.b(torch.tanh(m.e(tokens))),
            lambda: {"e": nn.EmbeddingBag(11, 6, mode=mode), "b": nn.Linear(6, 2)},
            (TOKENS,),
            "6 embedding",
        )
    )
