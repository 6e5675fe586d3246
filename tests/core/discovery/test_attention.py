"""Discovery in attention. Every network embeds STEPS (2, 5, 3) in a width of 8 and has 2 heads or 4."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_networks import PADDED, Case, Forward, check_case, draw, linear, on_steps
from torch import Tensor, nn
from torch.nn import functional as F


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


def picked(m: Any, x: Tensor) -> Tensor:
    """As many heads of queries as there are, one of keys and one of values, as Falcon has them."""
    heads = m.qkv(x).unflatten(-1, (-1, 2))
    q, k, v = (h.transpose(1, 2) for h in (heads[..., :-2, :], heads[..., [-2], :], heads[..., [-1], :]))
    return m.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


CAUSAL = torch.ones(5, 5, dtype=torch.bool).triu(1)
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
    "one head of keys and values": embedded(
        shared, "8 unit, 4 head, 8 unit", "two activations are multiplied", "flattened together",
        **{**FEWER, "k": linear(8, 2), "v": linear(8, 2)},
    ),
    "one head of keys and values, picked from the end": embedded(
        picked, "8 unit, 4 head, 8 unit", "picked out by index", qkv=linear(8, 12), proj=linear(8, 8)
    ),
    "learned keys and values": embedded(
        lambda m, x: m.attend(x, x, x)[0], "8 unit, 4 head, 8 unit", attend=attention(add_bias_kv=True)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_in_a_small_network(name: str) -> None:
    check_case(ATTENTION[name])
