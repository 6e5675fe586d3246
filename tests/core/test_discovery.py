"""What discovery finds in small modules, each with one difficulty, and that every cut it allows is exact."""

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from l0prune import GatedModel, GroupError
from l0prune.counting import macs, parameters
from l0prune.dependency import Discovery, discover
from l0prune.errors import TraceError
from l0prune.mac_model import mac_size
from l0prune.plan import model_shapes
from l0prune.proof import find_faults, relative_difference

Forward = Callable[..., Any]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Threads cost networks as small as these far more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Net(nn.Module):
    """Layers by name, and a forward pass written as a function of them."""

    def __init__(self, forward: Forward, **layers: Any) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.run = forward

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(self, *args, **kwargs)


@torch.no_grad()
def filled(model: nn.Module) -> nn.Module:
    """In float64 and with no parameter or statistic at a value where an error could hide."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in [*model.double().named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) * 0.5)
            if name.endswith("running_var"):
                tensor.abs_().add_(0.1)
    return model.eval()


def check(model: nn.Module, observe: Callable[[nn.Module], Any], groups: str, alone: Sequence[str] = ()) -> Discovery:
    """Discover, compare with what is expected, and try every cut on the way to random plans.

    Args:
        model: A filled model.
        observe: Its forward pass on example inputs.
        groups: What has to be found: "4 conv, 6 head".
        alone: Words in the reasons for which hidden units are left alone, each in one, and one in each.
    """
    found = discover(model, observe)
    assert names_of(found) == Counter(groups.split(", ") if groups else ())
    reasons = {each.reason for each in found.left_alone if not each.interface}
    assert all(sum(words in reason for reason in reasons) == 1 for words in alone), reasons
    assert len(reasons) == len(alone), reasons
    if groups:
        cuts_are_exact(model, observe, found)
    return found


def names_of(found: Discovery) -> Counter[str]:
    return Counter(f"{group.units} {group.kind}" for group in found.groups)


@torch.no_grad()
def cuts_are_exact(model: nn.Module, observe: Callable[[nn.Module], Any], found: Discovery, seeds: int = 2) -> None:
    """Gated = pruned, and counted = planned, for random plans over all groups at once."""
    before = copy.deepcopy(model)
    cost = mac_size(model, found.groups, found.trace)
    # torch's counter knows no recurrent layers; what it misses must not depend on the plan.
    recurrent = any(isinstance(module, nn.RNNBase | nn.RNNCellBase) for module in model.modules())
    dense = observe(model)
    assert recurrent or cost.total == macs(lambda: observe(model))
    gated = GatedModel(model, found.groups, target_sparsity=1e-9).eval()
    assert find_faults(gated, observe, tolerance=1e-5)[1] == {}
    for seed in range(seeds):
        random, values = np.random.default_rng(seed), []
        for group in found.groups:
            gates = random.uniform(0.3, 0.9, group.units)
            gates[random.permutation(group.units)[: random.integers(0, group.units)]] = 0
            values.append(gates)
        with gated.gates.fixed(torch.from_numpy(np.concatenate(values))):
            expected, (pruned, plan) = observe(gated.model), gated.pruned()
        kept = np.array([(gates > 0).sum() for gates in values])
        assert list(plan.kept_counts.values()) == kept.tolist()
        assert plan.pruned_shapes() == model_shapes(pruned)
        assert gated.parameter_model.exact(kept) == parameters(pruned)
        assert relative_difference(expected, observe(pruned)) < 1e-9
        assert relative_difference(dense, expected) > 1e-6
        assert recurrent or cost.exact(kept) == macs(lambda pruned=pruned: observe(pruned))
    same_model(gated.detach(), before)


def same_model(model: nn.Module, before: nn.Module) -> None:
    """The same classes, modes and values under the same names."""
    kinds = [(path, type(module).__name__, module.training) for path, module in model.named_modules()]
    assert kinds == [(path, type(module).__name__, module.training) for path, module in before.named_modules()]
    state, old = model.state_dict(), before.state_dict()
    assert state.keys() == old.keys()
    assert all(torch.equal(tensor, old[name]) for name, tensor in state.items())


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


ROWS, IMAGES, WAVES, STEPS = draw(4, 3), draw(2, 3, 6, 6), draw(2, 3, 9), draw(2, 5, 3)
TOKENS = torch.randint(0, 11, (2, 5), generator=torch.Generator().manual_seed(2))


@dataclass
class Case:
    """A network to build, its inputs, and what has to be found in it."""

    forward: Forward
    layers: Callable[[], dict[str, Any]]
    inputs: tuple[Any, ...]
    groups: str
    alone: tuple[str, ...] = ()


def on_rows(forward: Forward, groups: str, *alone: str, **layers: Callable[[], Any]) -> Case:
    return _case(forward, (ROWS,), groups, alone, layers)


def on_images(forward: Forward, groups: str, *alone: str, **layers: Callable[[], Any]) -> Case:
    return _case(forward, (IMAGES,), groups, alone, layers)


def on_steps(forward: Forward, groups: str, *alone: str, **layers: Callable[[], Any]) -> Case:
    return _case(forward, (STEPS,), groups, alone, layers)


def _case(forward: Forward, inputs: tuple, groups: str, alone: tuple, layers: dict[str, Callable[[], Any]]) -> Case:
    return Case(forward, lambda: {name: make() for name, make in layers.items()}, inputs, groups, alone)


def linear(inside: int, outside: int) -> Callable[[], nn.Module]:
    return lambda: nn.Linear(inside, outside)


def conv(inside: int, outside: int, kernel: int = 1, **more: Any) -> Callable[[], nn.Module]:
    return lambda: nn.Conv2d(inside, outside, kernel, **more)


def up(inside: int, outside: int, **more: Any) -> Callable[[], nn.Module]:
    return lambda: nn.ConvTranspose2d(inside, outside, 2, stride=2, **more)


def parameter(*shape: int) -> Callable[[], nn.Parameter]:
    return lambda: nn.Parameter(torch.empty(shape))


def chain(m: Any, x: Tensor) -> Tensor:
    """a, a norm or another layer b, a nonlinearity, c."""
    return m.c(torch.tanh(m.b(m.a(x))))


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


CASES: dict[str, Case] = {
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
    "units picked out by a tensor": on_rows(
        lambda m, x: m.b(m.a(x)[:, torch.tensor([2, 0, 5])]), "", "picked out by index", a=linear(3, 6), b=linear(3, 2)
    ),
}  # fmt: skip


# Attention. Every net embeds STEPS (2, 5, 3) in a width of 8 and has 2 heads or 4.


def embedded(inner: Forward, groups: str, *alone: str, **layers: Callable[[], Any]) -> Case:
    return on_steps(
        lambda m, x: m.out(inner(m, m.embed(x))), groups, *alone, embed=linear(3, 8), out=linear(8, 2), **layers
    )


def attention(heads: int = 4, **more: Any) -> Callable[[], nn.Module]:
    return lambda: nn.MultiheadAttention(8, heads, **{"batch_first": True, **more})


def fused(m: Any, x: Tensor) -> Tensor:
    """Queries, keys and values from one projection, as timm's vision transformers have it."""
    batch, steps, _ = x.shape
    q, k, v = m.qkv(x).reshape(batch, steps, 3, m.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    return m.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, steps, -1))


def separate(m: Any, x: Tensor) -> Tensor:
    q, k, v = (layer(x).unflatten(-1, (-1, m.head_dim)).transpose(1, 2) for layer in (m.q, m.k, m.v))
    return m.proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


def written_out(m: Any, x: Tensor) -> Tensor:
    q, k, v = (layer(x).view(*x.shape[:2], m.num_heads, -1).transpose(1, 2) for layer in (m.q, m.k, m.v))
    weights = torch.softmax(q @ k.transpose(-1, -2) / 2**0.5, dim=-1)
    return m.proj((weights @ v).transpose(1, 2).flatten(2))


def repeated(m: Any, x: Tensor) -> Tensor:
    """Two queries to each key and value."""
    q, k, v = (layer(x).unflatten(-1, (-1, m.head_dim)).transpose(1, 2) for layer in (m.q, m.k, m.v))
    k, v = (y.repeat_interleave(2, dim=1) for y in (k, v))
    return m.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def shared(m: Any, x: Tensor) -> Tensor:
    q, k, v = (layer(x).unflatten(-1, (-1, m.head_dim)).transpose(1, 2) for layer in (m.q, m.k, m.v))
    return m.proj(F.scaled_dot_product_attention(q, k, v, enable_gqa=True).transpose(1, 2).flatten(2))


CAUSAL = torch.ones(5, 5, dtype=torch.bool).triu(1)
PADDED = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
LINEARS = {"q": linear(8, 8), "k": linear(8, 8), "v": linear(8, 8), "proj": linear(8, 8)}
FEWER = {**LINEARS, "k": linear(8, 4), "v": linear(8, 4), "head_dim": lambda: 2}
ATTENTION: dict[str, Case] = {
    "itself": embedded(lambda m, x: m.attend(x, x, x)[0], "8 unit, 4 head, 8 unit", attend=attention()),
    "itself beside a residual stream": embedded(
        lambda m, x: x + m.attend(x, x, x, need_weights=False)[0], "8 unit, 4 head", attend=attention()
    ),
    "time first": embedded(
        lambda m, x: m.attend(y := x.transpose(0, 1), y, y)[0].transpose(0, 1), "8 unit, 4 head, 8 unit",
        attend=attention(batch_first=False),
    ),
    "masks, with weights": embedded(
        lambda m, x: m.attend(x, x, x, key_padding_mask=PADDED, attn_mask=CAUSAL)[0], "8 unit, 4 head, 8 unit",
        attend=attention(),
    ),
    "masks, without weights": embedded(
        lambda m, x: m.attend(x, x, x, key_padding_mask=PADDED, attn_mask=CAUSAL, need_weights=False)[0],
        "8 unit, 4 head, 8 unit", attend=attention(bias=False),
    ),
    "a mask for each head": embedded(
        lambda m, x: m.attend(x, x, x, attn_mask=draw(8, 5, 5), need_weights=False)[0], "8 unit, 8 unit",
        "fixed features", attend=attention(),
    ),
    "other features as keys and values": embedded(
        lambda m, x: m.attend(x, torch.tanh(m.key(x)), torch.tanh(m.value(x)))[0],
        "8 unit, 6 unit, 10 unit, 4 head, 8 unit",
        key=linear(8, 6), value=linear(8, 10), attend=attention(kdim=6, vdim=10),
    ),
    "weights that are read": embedded(
        lambda m, x: torch.add(*[y.amax(-1, keepdim=True) if n else y for n, y in enumerate(m.attend(x, x, x))]),
        "8 unit, 8 unit",
        "averaged or summed over", attend=attention()
    ),
    "one projection for queries, keys and values": embedded(
        fused, "8 unit, 4 head, 8 unit", qkv=linear(8, 24), proj=linear(8, 8), num_heads=lambda: 4
    ),
    "separate projections": embedded(separate, "8 unit, 4 head, 8 unit", **LINEARS, head_dim=lambda: 2),
    "products written out": embedded(written_out, "8 unit, 4 head, 8 unit", **LINEARS, num_heads=lambda: 4),
    "repeated keys": embedded(repeated, "8 unit, 2 head, 8 unit", **FEWER),
    "grouped queries": embedded(shared, "8 unit, 2 head, 8 unit", **FEWER),
}  # fmt: skip


# Recurrence, over STEPS (2, 5, 3) or TOKENS (2, 5).


def packed(m: Any, x: Tensor) -> Tensor:
    steps = pack_padded_sequence(m.embed(x), torch.tensor([5, 3]), batch_first=True)
    return m.out(pad_packed_sequence(m.rnn(steps)[0], batch_first=True)[0])


def looped(m: Any, x: Tensor) -> Tensor:
    hidden = cell = torch.tanh(m.start(x[:, 0]))
    for step in m.embed(x).unbind(1):
        hidden, cell = m.cell(step, (hidden, cell))
    return m.out(hidden)


def looped_from_zeros(m: Any, x: Tensor) -> Tensor:
    state = None
    for step in m.embed(x).unbind(1):
        state = m.cell(step, state)
    return m.out(state[0])


def recurrent(groups: str, rnn: Callable[[], nn.Module], width: int, forward: Forward | None = None) -> Case:
    forward = forward or (lambda m, x: m.out(m.rnn(m.embed(x))[0]))
    return on_steps(forward, groups, embed=linear(3, 4), rnn=rnn, out=linear(width, 2))


RECURRENT: dict[str, Case] = {
    "an LSTM": recurrent("4 unit, 6 hidden", lambda: nn.LSTM(4, 6, batch_first=True), 6),
    "a deep bidirectional LSTM": recurrent(
        "4 unit, 6 hidden", lambda: nn.LSTM(4, 6, 2, batch_first=True, bidirectional=True), 12
    ),
    "a bidirectional GRU without biases": recurrent(
        "4 unit, 6 hidden", lambda: nn.GRU(4, 6, batch_first=True, bidirectional=True, bias=False), 12
    ),
    "a bidirectional RNN": recurrent(
        "4 unit, 6 hidden", lambda: nn.RNN(4, 6, batch_first=True, bidirectional=True), 12
    ),
    "the last states of a GRU": recurrent(
        "4 unit, 6 hidden", lambda: nn.GRU(4, 6, 2, batch_first=True), 6,
        lambda m, x: m.out(m.rnn(m.embed(x))[1][-1]),
    ),
    "a GRU whose first state is computed": on_steps(
        lambda m, x: m.out(m.rnn(m.embed(x), torch.tanh(m.start(x[:, 0]))[None])[0]), "4 unit, 6 unit",
        embed=linear(3, 4), start=linear(3, 6), rnn=lambda: nn.GRU(4, 6, batch_first=True), out=linear(6, 2),
    ),
    "a packed sequence": recurrent("4 unit, 6 hidden", lambda: nn.LSTM(4, 6, batch_first=True), 6, packed),
    "an LSTM with projections": on_steps(
        lambda m, x: m.out(m.rnn(m.embed(x))[0]), "", "recurrent network with projections",
        embed=linear(3, 4), rnn=lambda: nn.LSTM(4, 6, proj_size=3, batch_first=True), out=linear(3, 2),
    ),
    "a loop over an LSTM cell": on_steps(
        looped, "4 unit, 6 unit",
        start=linear(3, 6), embed=linear(3, 4), cell=lambda: nn.LSTMCell(4, 6), out=linear(6, 2),
    ),
    "a loop over an LSTM cell that begins with zeros": on_steps(
        looped_from_zeros, "4 unit, 6 hidden",
        embed=linear(3, 4), cell=lambda: nn.LSTMCell(4, 6), out=linear(6, 2),
    ),
    "two LSTMs one after the other": recurrent(
        "4 unit, 6 hidden, 5 hidden",
        lambda: nn.ModuleList([nn.LSTM(4, 6, batch_first=True), nn.LSTM(6, 5, batch_first=True)]), 5,
        lambda m, x: m.out(m.rnn[1](m.rnn[0](m.embed(x))[0])[0]),
    ),
    "an embedding before an LSTM": Case(
        lambda m, x: m.out(m.rnn(m.embed(x))[0].mean(1)),
        lambda: {"embed": nn.Embedding(11, 4), "rnn": nn.LSTM(4, 6, batch_first=True), "out": nn.Linear(6, 2)},
        (TOKENS,), "4 embedding, 6 hidden",
    ),
}  # fmt: skip


ALL = {**CASES, **{f"attention to {name}": case for name, case in ATTENTION.items()}, **RECURRENT}


@pytest.mark.parametrize("name", ALL)
def test_a_purpose_made_network(name: str) -> None:
    case = ALL[name]
    check(filled(Net(case.forward, **case.layers())), lambda network: network(*case.inputs), case.groups, case.alone)


# Whole modules and other inputs.


def rows(model: nn.Module) -> Any:
    return model(ROWS)


def network(forward: Forward | None = None, **more: Any) -> nn.Module:
    """Two hidden layers, of 6 and of 5 units."""
    forward = forward or (lambda m, x: m.c(torch.tanh(m.b(torch.tanh(m.a(x))))))
    return filled(Net(forward, a=nn.Linear(3, 6), b=nn.Linear(6, 5), c=nn.Linear(5, 2), **more))


def encoder(first: bool) -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, norm_first=first)
    model = Net(
        lambda m, x, padding=None: m.out(m.encoder(m.embed(x), src_key_padding_mask=padding)),
        embed=nn.Linear(3, 8), encoder=nn.TransformerEncoder(layer, 2, enable_nested_tensor=not first),
        out=nn.Linear(8, 2),
    )  # fmt: skip
    return filled(model)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("padding", [None, PADDED])
def test_a_transformer_encoder_agrees_wherever_nothing_is_padded(first: bool, padding: Tensor | None) -> None:
    # In evaluation mode without gates torch takes fused kernels, which leave padded positions at zero.
    seen = torch.ones(2, 5, dtype=torch.bool) if padding is None else ~padding
    check(encoder(first), lambda model: model(STEPS, padding)[seen], "8 unit, 2 head, 12 unit, 2 head, 12 unit")


def tied() -> nn.Module:
    model = Net(
        lambda m, x: m.out((h := m.embed(x)) + m.c(torch.tanh(m.b(h)))),
        embed=nn.Embedding(11, 6), b=nn.Linear(6, 5), c=nn.Linear(5, 6), out=nn.Linear(6, 11, bias=False),
    )  # fmt: skip
    model.out.weight = model.embed.weight
    return filled(model)


def test_tied_weights_are_gated_wherever_they_stand_and_stay_tied() -> None:
    model = tied()
    found = check(model, lambda model: model(TOKENS), "6 unit, 5 unit")
    gated = GatedModel(model, found.groups, target_sparsity=1e-9).train()
    gated.gates.sample()
    assert torch.equal(gated.model.embed.weight, gated.model.out.weight)
    pruned, _ = gated.eval().pruned()
    assert pruned.embed.weight is pruned.out.weight
    assert gated.detach() is model
    assert model.embed.weight is model.out.weight


@dataclass
class Output:
    logits: Tensor
    hidden: Tensor | None = None


@pytest.mark.parametrize(
    "pack",
    [
        lambda out, hidden: {"logits": out, "list": [out.sum()]},
        lambda out, hidden: (out, None, 3),
        lambda out, hidden: Output(out),
        lambda out, hidden: [{"inner": (out,)}],
    ],
    ids=["dictionary", "tuple", "dataclass", "nested"],
)
def test_whatever_form_the_output_has_it_is_the_interface(pack: Callable[[Tensor, Tensor], Any]) -> None:
    def unpacked(model: nn.Module) -> Any:
        out = model(ROWS)
        return vars(out) if isinstance(out, Output) else out

    model = network(lambda m, x: pack(m.c(torch.tanh(m.b(h := torch.tanh(m.a(x))))), h))
    found = discover(model, rows)
    assert names_of(found) == Counter(["6 unit", "5 unit"])
    assert [(each.name, each.units) for each in found.left_alone if each.interface] == [("c", 2)]
    assert (found.hidden_units, found.reached_units) == (11, 11)
    cuts_are_exact(model, unpacked, found)


@pytest.mark.parametrize("pack", [lambda out, hidden: {"logits": out, "hidden": hidden}, Output])
def test_hidden_features_that_are_returned_stay(pack: Callable[[Tensor, Tensor], Any]) -> None:
    model = network(lambda m, x: pack(m.c(torch.tanh(m.b(h := torch.tanh(m.a(x))))), h))
    found = discover(model, rows)
    assert names_of(found) == Counter(["5 unit"])
    assert {each.name for each in found.left_alone if each.interface} == {"a", "c"}


def auxiliary(m: Any, x: Tensor) -> Any:
    out = m.c(torch.tanh(m.b(h := torch.tanh(m.a(x)))))
    return (out, m.aux(h)) if m.training else out


def test_a_head_that_only_training_runs_is_cut_along() -> None:
    model = network(auxiliary, aux=nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2)))
    found = check(model, rows, "6 unit, 5 unit, 4 unit")
    gated = GatedModel(model, found.groups, target_sparsity=0.4)
    assert [tuple(y.shape) for y in gated.pruned()[0].train()(ROWS)] == [(4, 2), (4, 2)]


def test_what_only_training_makes_of_units_binds_them_too() -> None:
    model = network(lambda m, x: auxiliary(m, x) if not m.training else (auxiliary(m, x), m.a(x)), aux=nn.Linear(6, 2))
    found = discover(model, rows)
    assert names_of(found) == Counter(["5 unit"])


def test_a_training_mode_that_fails_is_noted_and_evaluation_is_followed() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        if m.training:
            raise RuntimeError("needs targets")
        return m.c(torch.tanh(m.b(torch.tanh(m.a(x)))))

    found = check(network(forward), rows, "6 unit, 5 unit")
    assert any("needs targets" in note for note in found.notes)


def test_what_is_never_used_is_noted() -> None:
    found = check(network(idle=nn.Linear(6, 3)), rows, "6 unit, 5 unit")
    assert any("idle" in note for note in found.notes)
    assert found.hidden_units == 11


def test_a_width_written_out_in_the_code_is_refused_by_the_proof() -> None:
    model = network(lambda m, x: m.c(torch.tanh(m.b(torch.tanh(m.a(x)).view(4, 2, 3).flatten(1)))))
    found = discover(model, rows)
    gated = GatedModel(model, found.groups, target_sparsity=1e-9).eval()
    faults = find_faults(gated, rows)[1]
    assert {name.partition("#")[0] for name in faults} == {"a"}
    cuts_are_exact(gated.detach(), rows, found.without(faults))


@pytest.mark.parametrize("by_name", [False, True])
def test_ignored_modules_keep_their_units_and_inputs(by_name: bool) -> None:
    model = network()
    expected = {"a": "5 unit", "b": "", "c": "6 unit"}
    for name, groups in expected.items():
        found = discover(model, rows, ignored=[name if by_name else model.get_submodule(name)])
        assert names_of(found) == Counter([groups] if groups else [])
        assert {each.reason for each in found.left_alone if not each.interface} == {"told to ignore it"}
    assert names_of(discover(model, rows, ignored=["" if by_name else model])) == Counter()


def test_modules_of_another_model_are_refused() -> None:
    model = network()
    for foreign in (nn.Linear(3, 6), copy.deepcopy(model.a), "d"):
        with pytest.raises(GroupError, match="no such module"):
            discover(model, rows, ignored=[foreign])
        with pytest.raises(GroupError, match="no such module"):
            discover(model, rows, num_heads={foreign: 2})  # type: ignore[dict-item]


def test_heads_can_be_told() -> None:
    model = network()
    found = discover(model, rows, num_heads={model.a: 3})
    assert names_of(found) == Counter(["3 head", "5 unit"])
    cuts_are_exact(model, rows, found)
    for heads in (0, 4, -1):
        with pytest.raises(GroupError, match="heads do not divide"):
            discover(model, rows, num_heads={model.a: heads})


def test_tracing_gives_up_in_time() -> None:
    with pytest.raises(TraceError, match="took too long"):
        discover(network(), rows, time_limit=0.0)


def test_a_forward_pass_that_fails_is_reported_with_the_module_in_which_it_did() -> None:
    def fail(m: Any, x: Tensor) -> Tensor:
        raise ValueError("no such luck")

    model = network(lambda m, x: m.inner.deep(m.c(m.b(m.a(x)))), inner=Net(chain, deep=Net(fail)))
    with pytest.raises(TraceError, match=r"failed on the example inputs: inner\.deep \(got ValueError: no such luck"):
        discover(model, rows)
    with pytest.raises(TraceError, match="failed on the example inputs: a "):
        discover(network(), lambda model: model(STEPS[..., :2]))


def test_a_model_that_cannot_be_copied_is_refused() -> None:
    with pytest.raises(TraceError, match="cannot be copied"):
        discover(network(lines=(line for line in "abc")), rows)


def test_the_model_is_left_as_it_was() -> None:
    model = network(
        lambda m, x: m.c(m.drop(torch.tanh(m.norm(m.b(torch.tanh(m.a(x))))))),
        norm=nn.BatchNorm1d(5), drop=nn.Dropout(0.5),
    ).train()  # fmt: skip
    model.b.eval()
    before, random = copy.deepcopy(model), torch.get_rng_state()
    fast = torch.backends.mha.get_fastpath_enabled()
    names_before = {path: set(vars(module)) for path, module in model.named_modules()}
    found = discover(model, rows)
    assert names_of(found) == Counter(["6 unit", "5 unit"])
    same_model(model, before)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert {path: set(vars(module)) for path, module in model.named_modules()} == names_before
    hooks = [(m._forward_hooks, m._forward_pre_hooks) for m in model.modules()]
    assert not any(hook for pair in hooks for hook in pair)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


# Gates on what discovery brings.


def lstm() -> tuple[nn.Module, GatedModel]:
    case = RECURRENT["a deep bidirectional LSTM"]
    model = filled(Net(case.forward, **case.layers()))
    found = discover(model, lambda model: model(STEPS))
    return model, GatedModel(model, found.groups, target_sparsity=0.4)


def test_training_draws_reach_the_recurrent_weights() -> None:
    model, gated = lstm()
    gated.train()
    with torch.no_grad():
        # All are drawn between 0 and 1, where gates have a gradient, or next to it.
        gated.gates.log_alpha.zero_()
        assert not torch.equal(gated(STEPS), gated(STEPS))
    gated(STEPS).square().sum().backward()
    for name in ("weight_hh_l0", "weight_hh_l1_reverse", "weight_ih_l1"):
        weight = model.rnn.parametrizations[name].original
        assert weight.grad is not None
        z = gated.gates.of([group.kind for group in gated.groups].index("hidden"), training=True)
        width = weight.shape[1] // 6
        assert torch.equal(weight.grad.abs().sum(0) > 0, (z > 0).repeat(width)), name
    assert gated.gates.log_alpha.grad is not None
    assert gated.gates.log_alpha.grad.abs().sum() > 0


def test_a_gated_lstm_is_its_pruned_copy_in_evaluation_mode() -> None:
    _, gated = lstm()
    with torch.no_grad():
        gated.gates.log_alpha.normal_(std=3, generator=torch.Generator().manual_seed(0))
    pruned, plan = gated.eval().pruned()
    assert min(plan.kept_counts.values()) < 6
    assert relative_difference(gated(STEPS), pruned(STEPS)) < 1e-12


def test_detaching_gives_back_the_flat_weights_of_an_lstm() -> None:
    model, gated = lstm()
    dense = copy.deepcopy(gated).detach()
    expected = dense(STEPS)
    gated.train()(STEPS)
    gated.eval()(STEPS)
    assert gated.detach() is model
    flat = zip(model.rnn._flat_weights, model.rnn._flat_weights_names, strict=True)
    assert all(weight is getattr(model.rnn, name) for weight, name in flat)
    assert all(isinstance(weight, nn.Parameter) for weight in model.rnn._flat_weights)
    assert torch.equal(model(STEPS), expected)


def test_a_gated_lstm_can_be_copied_after_a_training_pass() -> None:
    _, gated = lstm()
    gated.train()(STEPS).sum().backward()
    twin = copy.deepcopy(gated)
    assert torch.equal(twin.eval()(STEPS), gated.eval()(STEPS))
    with torch.no_grad():
        twin.model.rnn.parametrizations.weight_hh_l0.original.zero_()
    assert not torch.equal(twin(STEPS), gated(STEPS))
    assert torch.isfinite(twin.train()(STEPS)).all()


# Networks drawn at random.


class Stage(nn.Module):
    """One step of a random network: width to width, over rows (B, C) or images (B, C, H, W)."""

    def __init__(self, kind: str, inside: int, outside: int, images: bool) -> None:
        super().__init__()

        def layer(a: int, b: int, **more: Any) -> nn.Module:
            return nn.Conv2d(a, b, 1, **more) if images else nn.Linear(a, b)

        self.kind, self.outside = kind, inside
        match kind:
            case "layer" | "concatenation":
                self.a = layer(inside, outside)
                self.outside = outside if kind == "layer" else inside + outside
            case "norm":
                self.a = nn.GroupNorm(2 - inside % 2, inside) if images else nn.LayerNorm(inside)
            case "statistics":
                self.a = (nn.BatchNorm2d if images else nn.BatchNorm1d)(inside)
            case "residual":
                self.a, self.b = layer(inside, outside), layer(outside, inside)
            case "gate":
                self.a, self.outside = layer(inside, 2 * outside), outside
            case "halves":
                self.a, self.b, self.c = layer(inside, 2 * outside), layer(outside, inside), layer(outside, inside)
            case "squeeze":
                self.a, self.b = layer(inside, outside), layer(outside, inside)
            case "depthwise":
                self.a = nn.Conv2d(inside, inside, 3, padding=1, groups=inside) if images else nn.PReLU(inside)
            case "scale":
                self.a = nn.Parameter(torch.empty((inside, 1, 1) if images else (inside,)))
            case "weight":
                self.a = nn.Parameter(torch.empty(inside, inside))

    def forward(self, x: Tensor) -> Tensor:
        return STEPPING.get(self.kind, lambda m, x: m.a(x))(self, x)


def gated_halves(m: Any, x: Tensor) -> Tensor:
    one, other = m.a(x).chunk(2, 1)
    return m.b(torch.tanh(one)) + m.c(other)


STEPPING: dict[str, Forward] = {
    "concatenation": lambda m, x: torch.cat([x, m.a(x)], 1),
    "residual": lambda m, x: x + m.b(torch.tanh(m.a(x))),
    "gate": lambda m, x: F.glu(m.a(x), 1),
    "halves": gated_halves,
    "squeeze": lambda m, x: x * torch.sigmoid(m.b(torch.tanh(m.a(x)))),
    "scale": lambda m, x: x * m.a,
    "weight": lambda m, x: (x.transpose(1, -1) @ m.a).transpose(1, -1),
    "activation": lambda m, x: torch.tanh(x),
}


class Drawn(nn.Module):
    """Stages one after the other, some of whose results are added to a later one through a layer of their own."""

    def __init__(self, kinds: Sequence[str], widths: Sequence[int], images: bool, skips: Sequence[bool]) -> None:
        super().__init__()
        self.images, width = images, 4
        self.enter = nn.Conv2d(3, width, 3) if images else nn.Linear(3, width)
        self.stages, self.skips = nn.ModuleList(), nn.ModuleDict()
        for n, (kind, outside, skip) in enumerate(zip(kinds, widths, skips, strict=False)):
            stage = Stage(kind, width, outside, images)
            if skip:
                self.skips[str(n)] = nn.Conv2d(4, stage.outside, 1) if images else nn.Linear(4, stage.outside)
            self.stages.append(stage)
            width = stage.outside
        self.leave = nn.Conv2d(width, 2, 1) if images else nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = first = self.enter(x)
        for n, stage in enumerate(self.stages):
            x = stage(x)
            x = x + self.skips[str(n)](first) if str(n) in self.skips else x
        return self.leave(x)


KINDS = "layer norm statistics depthwise".split() + list(STEPPING)


@settings(max_examples=16)
@given(
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=6),
    st.lists(st.integers(2, 5), min_size=6, max_size=6),
    st.booleans(),
    st.lists(st.booleans(), min_size=6, max_size=6),
)
def test_everything_found_in_a_random_network_is_exact(
    kinds: list[str], widths: list[int], images: bool, skips: list[bool]
) -> None:
    model = filled(Drawn(kinds, widths, images, skips))
    inputs = IMAGES if images else ROWS
    found = discover(model, lambda model: model(inputs))
    assert found.groups
    assert found.reached_units <= found.hidden_units
    cuts_are_exact(model, lambda model: model(inputs), found, seeds=1)
