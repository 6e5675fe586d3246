"""Discovery in layers, and in what forward passes do to their features."""

from typing import Any

import pytest
import torch
from small_networks import (
    ROWS,
    TOKENS,
    Case,
    Net,
    chain,
    check_case,
    conv,
    filled,
    linear,
    on_images,
    on_rows,
    on_steps,
    parameter,
    up,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import ops

from l0prune.discovery.search import discover


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


class ShiftedNorm(nn.Module):
    """An RMS norm whose weight counts from 1 on, as Gemma has it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * (1 + self.scale)


class ChannelNorm(nn.Module):
    """A layer norm over the channels of images, written out; its weight is as long as they are, and of rank 4."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(1, width, 1, 1)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        y = (x - x.mean(1, keepdim=True)) / torch.sqrt(x.var(1, keepdim=True, unbiased=False) + 1e-6)
        return y * self.weight + self.bias[:, None, None]


class ResponseNorm(nn.Module):
    """Global response normalisation, as ConvNeXt V2 has it: as many places as channels must not be taken for them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width, 1, 1)), nn.Parameter(torch.zeros(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        size = torch.norm(x, dim=(2, 3), keepdim=True)
        return x + self.weight * x * size / (size.mean(dim=1, keepdim=True) + 1e-6) + self.bias


class Scaled(nn.Module):
    """A function over the features, and a scale of its own."""

    def __init__(self, width: int, function: Any) -> None:
        super().__init__()
        self.gain, self.function = nn.Parameter(torch.ones(width)), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x) * self.gain


class Function(nn.Module):
    """A function as a module, without a parameter."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


OWN_STATISTICS: dict[str, Any] = {
    "length": lambda x: F.normalize(x, dim=-1),
    "softmax": lambda x: torch.softmax(x, -1),
    "softmax in double precision": lambda x: F.softmax(x, dim=-1, dtype=torch.float64),
    "largest": lambda x: x - x.amax(-1, keepdim=True),
    "smallest": lambda x: x - x.amin(dim=-1, keepdim=True),
    "sum": lambda x: x / (1 + x.square().sum(-1, keepdim=True)),
    "deviation": lambda x: x / (x.std(-1, keepdim=True, unbiased=False) + 1),
    "variance": lambda x: x / (torch.var(x, -1, correction=0, keepdim=True) + 1),
    "1-norm": lambda x: x / torch.linalg.vector_norm(x, 1, -1, True),
    "2-norm": lambda x: x / x.norm(dim=-1, keepdim=True),
}


def joined(m: Any, x: Tensor) -> Tensor:
    return m.c(torch.tanh(m.norm(torch.cat([m.a(x), m.b(x)], 1))))


PLACES = torch.tensor([0, 2, 1, 1, 0])


def picked(m: Any, x: Tensor) -> Tensor:
    h, places = torch.tanh(m.a(x)), m.s(x).squeeze(-1).topk(3, 1).indices
    return m.b(h.gather(1, places[..., None].expand(-1, -1, h.shape[-1])))


def spread(h: Tensor) -> Tensor:
    return PLACES[None, :, None].expand(h.shape)


BOXES = torch.tensor([[0, 0.0, 0, 4, 4], [1, 1, 1, 5, 5]], dtype=torch.float64)


def written(h: Tensor, value: Tensor) -> Tensor:
    """Some steps are replaced by a value."""
    h, places = h.clone(), torch.zeros(h.shape[:2], dtype=torch.bool)
    places[0, 1] = places[1, 3] = True
    h[places] = value
    return h.index_put((torch.tensor([0, 1]), torch.tensor([2, 2])), value)


def experts(m: Any, x: Tensor) -> Tensor:
    return torch.einsum("bxh,xhd->bxd", torch.tanh(torch.einsum("bd,xdh->bxh", x, m.w)), m.v)


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
        chain, "6 unit", a=linear(3, 6), b=lambda: nn.LayerNorm(6, elementwise_affine=False), c=linear(6, 2)
    ),
    "RMSNorm without a weight": on_rows(
        chain, "6 unit", a=linear(3, 6), b=lambda: nn.RMSNorm(6, elementwise_affine=False), c=linear(6, 2)
    ),
    "LayerNorm without a weight over a concatenation": on_rows(
        lambda m, x: m.c(torch.tanh(m.norm(torch.cat([m.a(x), m.b(x)], 1)))), "4 unit, 2 unit",
        a=linear(3, 4), b=linear(3, 2), norm=lambda: nn.LayerNorm(6, elementwise_affine=False), c=linear(6, 2),
    ),
    "nn.Softmax over channels": on_images(
        chain, "6 conv", a=conv(3, 6), b=lambda: nn.Softmax(1), c=conv(6, 2)
    ),
    "a length of 1": on_rows(
        chain, "6 unit", a=linear(3, 6), b=lambda: Function(lambda x: F.normalize(x, dim=-1)), c=linear(6, 2)
    ),
    "a norm by another name": on_rows(
        chain, "6 unit", a=linear(3, 6), b=lambda: Scaled(6, lambda x: F.layer_norm(x, x.shape[-1:])), c=linear(6, 2)
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
    "an RMS norm whose weight counts from 1": on_rows(
        chain, "6 unit", a=linear(3, 6), b=lambda: ShiftedNorm(6), c=linear(6, 2)
    ),
    "a layer norm over channels, written out": on_images(
        chain, "6 conv", a=conv(3, 6), b=lambda: ChannelNorm(6), c=conv(6, 2)
    ),
    "a response norm": on_images(chain, "6 conv", a=conv(3, 6), b=lambda: ResponseNorm(6), c=conv(6, 2)),
    "a written norm over a concatenation": on_images(
        joined, "4 conv, 6 conv", a=conv(3, 4), b=conv(3, 6), norm=lambda: ChannelNorm(10), c=conv(10, 2)
    ),
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
        lambda m, x: m.b(torch.fft.rfft(m.a(x)).real), "", "frequencies", a=linear(3, 6), b=linear(4, 2)
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
        lambda m, x: m.b(m.a(x).topk(3, -1).values), "", "what it ranks", a=linear(3, 6), b=linear(3, 2)
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
    "places written over": on_steps(
        lambda m, x: m.b(written(torch.tanh(m.a(x)), m.t)), "6 unit",
        a=linear(3, 6), t=parameter(6), b=linear(6, 2),
    ),
    "units picked out by an index from the end": on_rows(
        lambda m, x: m.b((h := m.a(x))[:, :-1]) + m.c(h[:, [-1]]), "5 unit", "picked out by index",
        a=linear(3, 6), b=linear(5, 2), c=linear(1, 2),
    ),
    "a Fourier transform over places": on_images(
        lambda m, x: m.b(torch.fft.irfft2(torch.fft.rfft2(torch.tanh(m.a(x))).abs(), s=(6, 6))), "4 conv",
        a=conv(3, 4), b=conv(4, 2),
    ),
    "nn.Bilinear": on_rows(
        lambda m, x: m.c(torch.tanh(m.both(torch.tanh(m.a(x)), torch.tanh(m.b(x))))), "4 unit, 5 unit, 6 unit",
        a=linear(3, 4), b=linear(3, 5), both=lambda: nn.Bilinear(4, 5, 6), c=linear(6, 2),
    ),
    "distances": on_steps(
        lambda m, x: torch.cdist(h := m.a(x), h) @ m.c(torch.tanh(m.b(x))), "5 unit", "distances are measured in",
        a=linear(3, 4), b=linear(3, 5), c=linear(5, 2),
    ),
    "windows as channels": on_images(
        lambda m, x: m.b(F.unfold(torch.tanh(m.a(x)), 3).mT), "4 conv", a=conv(3, 4), b=linear(36, 2)
    ),
    "windows put together": on_images(
        lambda m, x: m.b(F.fold(torch.tanh(m.a(x)).flatten(2), (7, 7), 2)), "4 conv", a=conv(3, 16), b=conv(4, 2)
    ),
    "windows over steps": on_steps(
        lambda m, x: m.b(torch.tanh(m.a(x)).unfold(1, 3, 1).mean(-1)), "6 unit", a=linear(3, 6), b=linear(6, 2)
    ),
    "boxes": on_images(
        lambda m, x: m.b(ops.roi_align(torch.tanh(m.a(x)), BOXES, 2)), "4 conv", a=conv(3, 4), b=conv(4, 2)
    ),
    "a deformable convolution": on_images(
        lambda m, x: m.c(torch.tanh(m.b(torch.tanh(m.a(x)), torch.tanh(m.where(x))))),
        "4 conv, 6 conv",
        "where a convolution looks",
        a=conv(3, 4), where=conv(3, 18, 3), b=lambda: ops.DeformConv2d(4, 6, 3), c=conv(6, 2),
    ),
    "torch.vmap": on_rows(
        lambda m, x: m.b(torch.vmap(lambda row: torch.tanh(m.a(row)))(x)), "6 unit", a=linear(3, 6), b=linear(6, 2)
    ),
    "experts in one tensor, and how much of each": on_rows(
        lambda m, x: torch.einsum("bx,bxd->bd", m.r(x).softmax(-1), experts(m, x)), "6 unit", "summed over",
        w=parameter(4, 3, 6), v=parameter(4, 6, 2), r=linear(3, 4),
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


@pytest.mark.parametrize("name", OWN_STATISTICS)
def test_a_module_with_a_scale_takes_statistics_over_what_is_left(name: str) -> None:
    check_case(on_rows(chain, "6 unit", a=linear(3, 6), b=lambda: Scaled(6, OWN_STATISTICS[name]), c=linear(6, 2)))


def test_what_a_module_works_out_otherwise_is_left_alone() -> None:
    model = filled(
        Net(chain, a=nn.Linear(3, 6), b=Scaled(6, lambda x: x / x.median(-1, True).values), c=nn.Linear(6, 2))
    )
    assert discover(model, lambda network: network(ROWS)).groups == ()


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
