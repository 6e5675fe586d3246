"""SlimMultiheadAttention: what torch's own gives as long as nothing is cut, and what it gives with a head zeroed."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from l0prune import Place, PruneGroup, Role, apply_plan, consecutive
from l0prune.layers.attention import SlimMultiheadAttention, adopt_attention
from l0prune.removal.plan import make_plan
from l0prune.support.modules import model_shapes

BATCH, QUERIES, KEYS, HEADS, HEAD_DIM = 2, 4, 5, 3, 2
WIDTH = HEADS * HEAD_DIM


def attention(**more: Any) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    module = nn.MultiheadAttention(WIDTH, HEADS, dtype=torch.float64, **more)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    return module.eval()


def inputs(module: nn.MultiheadAttention, batched: bool, keys: int = KEYS) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)

    def draw(steps: int, width: int) -> Tensor:
        shape = (BATCH, steps, width) if module.batch_first else (steps, BATCH, width)
        return torch.randn(shape if batched else (steps, width), generator=generator, dtype=torch.float64)

    return draw(QUERIES, WIDTH), draw(keys, module.kdim), draw(keys, module.vdim)


def mask(shape: tuple[int, ...], kind: str) -> Tensor:
    """A mask that leaves every query its first key."""
    generator = torch.Generator().manual_seed(2)
    if kind == "float":
        return torch.randn(shape, generator=generator, dtype=torch.float64)
    closed = torch.rand(shape, generator=generator) < 0.5
    closed[..., 0] = False
    return closed


def both(module: nn.MultiheadAttention, *args: Tensor, **more: Any) -> tuple[tuple, tuple]:
    slim = copy.deepcopy(module)
    adopt_attention(slim)
    return module(*args, **more), slim(*args, **more)


def agree(expected: tuple, got: tuple) -> None:
    (one, weights), (other, slim_weights) = expected, got
    torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)
    assert (weights is None) == (slim_weights is None)
    if weights is not None:
        torch.testing.assert_close(slim_weights, weights, rtol=1e-12, atol=1e-12)


# torch says itself that it will want both masks in one type; that is not what is tested.
@pytest.mark.filterwarnings("ignore:Support for mismatched")
@given(
    module=st.fixed_dictionaries(
        {
            "batch_first": st.booleans(),
            "bias": st.booleans(),
            "add_zero_attn": st.booleans(),
            "add_bias_kv": st.booleans(),
            "kdim": st.sampled_from([None, 3]),
            "vdim": st.sampled_from([None, 7]),
        }
    ),
    call=st.fixed_dictionaries({"need_weights": st.booleans(), "average_attn_weights": st.booleans()}),
    batched=st.booleans(),
    attn_mask=st.sampled_from([None, "bool", "float"]),
    by_head=st.booleans(),
    padding=st.sampled_from([None, "bool", "float"]),
    training=st.booleans(),
)
def test_uncut_it_is_torchs_own(
    module: dict[str, Any],
    call: dict[str, Any],
    batched: bool,
    attn_mask: str | None,
    by_head: bool,
    padding: str | None,
    training: bool,
) -> None:
    dense = attention(**module).train(training)
    if attn_mask is not None:
        copies = ((BATCH if batched else 1) * HEADS,) if by_head else ()
        call["attn_mask"] = mask((*copies, QUERIES, KEYS), attn_mask)
    if padding is not None:
        call["key_padding_mask"] = mask((BATCH, KEYS) if batched else (KEYS,), padding)
    agree(*both(dense, *inputs(dense, batched), **call))


@given(st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_uncut_it_is_torchs_own_under_a_causal_mask(
    batch_first: bool, need_weights: bool, batched: bool, padded: bool
) -> None:
    module = attention(batch_first=batch_first)
    causal = nn.Transformer.generate_square_subsequent_mask(QUERIES, dtype=torch.float64)
    more: dict[str, Any] = {"need_weights": need_weights, "attn_mask": causal, "is_causal": True}
    if padded:
        more["key_padding_mask"] = mask((BATCH, QUERIES) if batched else (QUERIES,), "float")
    agree(*both(module, *inputs(module, batched, keys=QUERIES), **more))


def test_dropout_acts_in_training_alone() -> None:
    module = attention(batch_first=True, dropout=0.5)
    x = torch.randn(BATCH, QUERIES, WIDTH, dtype=torch.float64)
    for need_weights in (True, False):
        agree(*both(module, x, x, x, need_weights=need_weights))
        slim = copy.deepcopy(module).train()
        adopt_attention(slim)
        first, second = (slim(x, x, x, need_weights=need_weights)[0] for _ in range(2))
        assert not torch.equal(first, second)


def head_group(module: nn.MultiheadAttention) -> PruneGroup:
    """Heads, by hand: rows of the projections, columns of the output."""

    def place(tensor: str, dim: int, role: Role = Role.PRODUCES) -> Place:
        return Place(tensor=tensor, dim=dim, role=role, index=consecutive(HEADS, HEAD_DIM))

    thirds = np.concatenate([consecutive(HEADS, HEAD_DIM, n * WIDTH) for n in range(3)], axis=1)
    projections = [
        Place(tensor=name, dim=0, role=Role.PRODUCES, index=thirds)
        for name in ("in_proj_weight", "in_proj_bias")
        if getattr(module, name) is not None
    ]
    if module.in_proj_weight is None:
        projections += [place(f"{name}_proj_weight", 0) for name in "qkv"]
    return PruneGroup(
        name="heads",
        kind="head",
        units=HEADS,
        places=(*projections, place("out_proj.weight", 1, role=Role.CONSUMES)),
    )


@given(
    st.sets(st.integers(0, HEADS - 1), min_size=1),
    st.booleans(),
    st.sampled_from([None, 3]),
    st.booleans(),
    st.booleans(),
)
def test_cutting_a_head_is_zeroing_it(
    kept: set[int], bias: bool, kdim: int | None, by_head: bool, add_zero_attn: bool
) -> None:
    dense = attention(bias=bias, kdim=kdim, batch_first=True, add_zero_attn=add_zero_attn)
    zeroed = copy.deepcopy(dense)
    with torch.no_grad():
        columns = zeroed.out_proj.weight.view(WIDTH, HEADS, HEAD_DIM)
        columns[:, [h for h in range(HEADS) if h not in kept]] = 0
    plan = make_plan([head_group(dense)], {"heads": tuple(sorted(kept))}, model_shapes(dense))
    slim = apply_plan(copy.deepcopy(dense), plan)
    assert isinstance(slim, SlimMultiheadAttention) == (len(kept) < HEADS)
    assert (slim.num_heads, slim.head_dim, slim.embed_dim) == (len(kept), HEAD_DIM, WIDTH)
    more: dict[str, Any] = {"average_attn_weights": False}
    args = inputs(dense, batched=True)
    if by_head:
        masks = mask((BATCH, HEADS, QUERIES, KEYS), "bool")
        expected, weights = zeroed(*args, **more, attn_mask=masks.flatten(0, 1))
        got, slim_weights = slim(*args, **more, attn_mask=masks[:, sorted(kept)].flatten(0, 1))
    else:
        (expected, weights), (got, slim_weights) = zeroed(*args, **more), slim(*args, **more)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(slim_weights, weights[:, sorted(kept)], rtol=1e-12, atol=1e-12)
    # Without the weights another kernel computes the same.
    unweighted, nothing = slim(*args, need_weights=False)
    torch.testing.assert_close(unweighted, zeroed(*args, need_weights=False)[0], rtol=1e-12, atol=1e-12)
    assert nothing is None


def test_a_cut_module_survives_saving_copying_and_another_cut() -> None:
    dense = attention(batch_first=True)
    slim = apply_plan(copy.deepcopy(dense), make_plan([head_group(dense)], {"heads": (0, 2)}, model_shapes(dense)))
    args = inputs(dense, batched=True)
    expected = slim(*args)[0]
    assert torch.equal(copy.deepcopy(slim)(*args)[0], expected)
    other = attention(batch_first=True)
    apply_plan(other, make_plan([head_group(other)], {"heads": (0, 1)}, model_shapes(other)))
    other.load_state_dict(slim.state_dict())
    assert torch.equal(other(*args)[0], expected)
