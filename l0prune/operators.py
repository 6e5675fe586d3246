"""What each operator does to the atoms of its operands (see `tracing`).

A rule takes the tracer, the operator's arguments by position and its result. Operators without a rule pin their
operands: a missing rule costs reach, never correctness.
"""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from l0prune.tracing import Atoms, Block, Tracer, output_tensors

Rule = Callable[[Tracer, Sequence[Any], Any], None]
ModuleRule = Callable[[Tracer, nn.Module, tuple, dict, Any], None]

_RULES: dict[str, Rule] = {}


def _rule(names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        _RULES.update(dict.fromkeys(names.split(), rule))
        return rule

    return register


def apply_rule(tracer: Tracer, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> None:
    """Carry atoms from an operator's operands to its results.

    Args:
        tracer: Holds the atoms.
        func: The ATen overload.
        args: Its arguments.
        kwargs: Its keyword arguments.
        out: What it returned.
    """
    name = func._schema.name.removeprefix("aten::")
    # In-place variants follow the rule of the plain operator.
    name = name if name in _RULES else name.rstrip("_")
    operands = [leaf for leaf in [*_tensors(args), *_tensors(kwargs.values())]]
    if name in _RULES:
        _RULES[name](tracer, _positional(func, args, kwargs), out)
    elif torch.Tag.pointwise in func.tags:
        _pointwise(tracer, operands, out)
    elif name.endswith("_like") or name.startswith("new_"):
        _shaped_like(tracer, operands, out)
    else:
        for operand in operands:
            tracer.pin_all(operand, f"read by {name}, which has no rule,")
    if operands and all(tracer.facts(operand).constant for operand in operands):
        for result in _tensors([out]):
            tracer.set(result, tracer.facts(result).blocks, constant=True)


def _positional(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
    """All arguments in the schema's order, defaults filled in."""
    schema = func._schema.arguments
    rest = [kwargs.get(a.name, a.default_value) for a in schema[len(args) :]]
    return [*args, *rest]


def _tensors(values: Any) -> list[Tensor]:
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(value)
    return found


def _move(blocks: Sequence[Block], where: Callable[[int], int]) -> list[Block]:
    return [Block(tuple(where(d) for d in block.dims), block.atoms) for block in blocks]


# Elementwise


@_rule(
    "masked_fill where native_dropout bernoulli clone fill zero dropout lerp addcmul addcdiv hardswish "
    "hardsigmoid hardtanh relu6 prelu _prelu_kernel mish silu elu celu selu leaky_relu softplus rrelu_with_noise "
    "threshold gelu log_sigmoid_forward softshrink hardshrink normal uniform exponential random"
)
def _elementwise(tracer: Tracer, args: Sequence[Any], out: Any) -> None:
    _pointwise(tracer, _tensors(args), out)


@_rule("full zeros ones empty empty_strided new_full new_zeros new_ones new_empty full_like zeros_like ones_like")
def _blank(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    _shaped_like(tracer, _tensors(args[:1]), out)
    if not tracer.facts(out).blocks:
        tracer.make_blank(out)


@_rule("copy")
def _copy(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    """Writing into a part of a blank tensor: the rest of it is as long as what is written."""
    into, x = args[:2]
    base = tracer.blank_under(into)
    if base is None or tracer.facts(into).blocks:
        _pointwise(tracer, [into, x], out)
        return
    tracer.settle(x)
    blocks, below = [], list(tracer.facts(base).blocks)
    for block in _move(tracer.facts(x).blocks, lambda d: d + into.ndim - x.ndim):
        dim = block.dims[0]
        same = [d for d in range(base.ndim) if (base.stride(d), base.shape[d]) == (into.stride(dim), into.shape[dim])]
        if len(same) != 1 or any(b.dims == (same[0],) for b in below):
            tracer.pin(block.atoms, "is written to a part of another tensor")
        else:
            blocks.append(block)
            below.append(Block((same[0],), block.atoms))
    tracer.set(base, below)
    tracer.set(out, blocks)


def _pointwise(tracer: Tracer, operands: Sequence[Tensor], out: Any) -> None:
    for result in _tensors([out]):
        tracer.set(result, _unified(tracer, operands, result.ndim))


def _unified(tracer: Tracer, operands: Sequence[Tensor], ndim: int) -> list[Block]:
    """Atoms of a broadcast combination; what stands on one dimension of several operands is unified."""
    operands = [operand for operand in operands if operand.ndim and operand.numel() > 1]
    # A tensor made on the way (dropout's noise, say) is as long as what it meets.
    operands = [o for o in operands if tracer.facts(o).blocks or tracer.blank_under(o) is None] or operands
    joint = [b for operand in operands for b in _aligned(tracer, operand, ndim) if len(b.dims) > 1]
    if joint and not all(_same_or_absent(tracer, operand, ndim, joint) for operand in operands):
        for operand in operands:
            tracer.settle(operand)
        joint = []
    blocks: list[Block] = []
    seen: set[tuple[int, ...]] = set()
    for block in joint:
        if block.dims in seen:
            continue
        seen.add(block.dims)
        for other in joint:
            if other.dims == block.dims:
                tracer.unify(block.atoms, other.atoms)
        blocks.append(block)
    taken = {d for block in blocks for d in block.dims}
    for dim in range(ndim):
        if dim in taken:
            continue
        present = [o for o in operands if dim >= ndim - o.ndim and o.shape[dim - ndim] > 1]
        found = [tracer.along(operand, dim - ndim) for operand in present]
        first = next((atoms for atoms in found if atoms is not None), None)
        if first is None:
            continue
        for atoms in found:
            tracer.unify(first, atoms)
        if _goes_on(tracer, first, found):
            blocks.append(Block((dim,), first))
    return blocks


def _goes_on(tracer: Tracer, first: Atoms, found: Sequence[Atoms | None]) -> bool:
    """Whether atoms that may have met a fixed dimension, and been pinned, are worth following: a layer's own are."""
    return all(atoms is not None for atoms in found) or not tracer.is_new(first)


def _aligned(tracer: Tracer, operand: Tensor, ndim: int) -> list[Block]:
    return _move(tracer.facts(operand).blocks, lambda d: d + ndim - operand.ndim)


def _same_or_absent(tracer: Tracer, operand: Tensor, ndim: int, joint: Sequence[Block]) -> bool:
    """Whether an operand carries each joint block in the same form or does not extend over its dimensions."""
    mine = _aligned(tracer, operand, ndim)
    for block in joint:
        same = any(b.dims == block.dims and b.atoms.shape == block.atoms.shape for b in mine)
        offset = ndim - operand.ndim
        absent = all(d < offset or operand.shape[d - offset] == 1 for d in block.dims)
        if not (same or absent):
            return False
    return True


def _shaped_like(tracer: Tracer, operands: Sequence[Tensor], out: Any) -> None:
    if isinstance(out, Tensor) and operands and operands[0].shape == out.shape:
        tracer.set(out, tracer.facts(operands[0]).blocks)


@_rule("_to_copy contiguous detach alias lift_fresh view_as_real_copy _conj requires_grad to")
def _identity(tracer: Tracer, args: Sequence[Any], out: Any) -> None:
    facts = tracer.facts(args[0])
    if isinstance(out, Tensor):
        tracer.set(out, facts.blocks, constant=facts.constant)


@_rule("_local_scalar_dense equal is_nonzero item sym_size sym_numel is_same_size _has_compatible_shallow_copy_type")
def _value(tracer: Tracer, args: Sequence[Any], out: Any) -> None:
    """Gives a number: nothing to carry."""


@_rule("glu")
def _glu(tracer: Tracer, args: Sequence[Any], out: Any) -> None:
    x, dim = args[0], args[1] % args[0].ndim
    tracer.settle(x)
    blocks = []
    for block in tracer.facts(x).blocks:
        if block.dims == (dim,):
            first, second = np.split(block.atoms, 2)
            tracer.unify(first, second)
            block = Block((dim,), first)
        blocks.append(block)
    tracer.set(out, blocks)


# Shapes


@_rule("view _unsafe_view reshape unsqueeze squeeze flatten _reshape_alias unflatten")
def _reshape(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x = args[0]
    facts = tracer.facts(x)
    if not facts.blocks:
        return
    factors = _factors(tuple(x.shape), tuple(out.shape))
    if factors is None:
        tracer.pin_all(x, "is reshaped across its channels")
        return
    sizes, inner, outer = factors
    owner = {k: d for d, ks in enumerate(outer) for k in ks}
    split: list[tuple[list[int], np.ndarray]] = []
    for block in facts.blocks:
        axes = [k for d in block.dims for k in inner[d]]
        atoms = block.atoms.reshape([sizes[k] for k in axes])
        for axis in reversed(range(len(axes))):
            if len(axes) > 1 and (atoms == atoms.take([0], axis)).all():
                atoms = atoms.take(0, axis)
                del axes[axis]
        split.append((axes, atoms))

    def shared() -> set[int]:
        touched = [{owner[k] for k in axes} for axes, _ in split]
        return {d for i, one in enumerate(touched) for d in one if any(d in two for two in touched[i + 1 :])}

    if shared():
        # A dimension that was expanded gives way to one with units of its own.
        for _, atoms in split:
            if tracer.is_new(atoms):
                tracer.pin(atoms, "is flattened together with other channels")
        split = [(axes, atoms) for axes, atoms in split if not tracer.is_new(atoms)]
    clash = shared()
    blocks = []
    for axes, atoms in split:
        if clash & {owner[k] for k in axes}:
            tracer.pin(atoms, "is flattened together with other channels")
            continue
        blocks.append(_merge(tracer, axes, atoms, sizes, outer, owner))
    tracer.set(out, blocks, constant=facts.constant)
    for block in blocks:
        if len(block.dims) == 1:
            tracer.read(block.atoms)


def _merge(
    tracer: Tracer,
    axes: list[int],
    atoms: np.ndarray,
    sizes: Sequence[int],
    outer: Sequence[Sequence[int]],
    owner: dict[int, int],
) -> Block:
    """Bring the factors of one block together in the dimensions that own them."""
    for dim in dict.fromkeys(owner[k] for k in axes):
        mine = [axes.index(k) for k in axes if owner[k] == dim]
        if len(mine) > 1:
            # A reshape there and back keeps whole first factors (heads); one that transposes in between (a channel
            # shuffle) keeps whole places of the longest factor.
            in_order = [axes[a] for a in mine] == sorted(axes[a] for a in mine)
            stay = mine[0] if in_order else max(mine, key=lambda a: sizes[axes[a]])
            for axis in sorted((a for a in mine if a != stay), reverse=True):
                first = atoms.take([0], axis)
                tracer.unify(atoms, np.broadcast_to(first, atoms.shape))
                atoms = atoms.take(0, axis)
                del axes[axis]
    for axis, k in enumerate(axes):
        factors = outer[owner[k]]
        place = list(factors).index(k)
        before, after = prod(sizes[f] for f in factors[:place]), prod(sizes[f] for f in factors[place + 1 :])
        atoms = np.repeat(atoms, after, axis)
        atoms = np.concatenate([atoms] * before, axis)
    return Block(tuple(owner[k] for k in axes), atoms)


def _factors(
    before: tuple[int, ...], after: tuple[int, ...]
) -> tuple[list[int], list[list[int]], list[list[int]]] | None:
    """The common refinement of two shapes: factor sizes, and the factors of each dimension on both sides."""
    if prod(before) == 0:
        return None
    ends = [[prod(shape[: d + 1]) for d in range(len(shape))] for shape in (before, after)]
    marks = sorted({1, *ends[0], *ends[1]})
    if any(high % low for low, high in pairwise(marks)):
        return None
    sizes = [high // low for low, high in pairwise(marks)]

    def parts(shape: tuple[int, ...]) -> list[list[int]]:
        found, low = [], 1
        for extent in shape:
            found.append([k for k, mark in enumerate(marks[:-1]) if low <= mark < low * extent])
            low *= extent
        return found

    return sizes, parts(before), parts(after)


@_rule("as_strided")
def _as_strided(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x = args[0]
    # Only dimensions of one element may change their stride without a change of meaning.
    same = x.shape == out.shape and x.storage_offset() == out.storage_offset()
    if same and all(a == b for a, b, n in zip(x.stride(), out.stride(), x.shape, strict=True) if n > 1):
        tracer.set(out, tracer.facts(x).blocks, constant=tracer.facts(x).constant)
    else:
        tracer.pin_all(x, "read by as_strided, which has no rule,")


@_rule("permute")
def _permute(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x, order = args[0], [d % args[0].ndim for d in args[1]]
    facts = tracer.facts(x)
    tracer.set(out, _move(facts.blocks, order.index), constant=facts.constant)


@_rule("transpose t numpy_T")
def _transpose(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x = args[0]
    one, other = (args[1] % x.ndim, args[2] % x.ndim) if len(args) > 2 else (0, x.ndim - 1)
    swap = {one: other, other: one}
    facts = tracer.facts(x)
    tracer.set(out, _move(facts.blocks, lambda d: swap.get(d, d)), constant=facts.constant)


@_rule("expand")
def _expand(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    facts = tracer.facts(args[0])
    shift = out.ndim - args[0].ndim
    blocks = _move(facts.blocks, lambda d: d + shift)
    for dim in range(out.ndim):
        if out.shape[dim] > 1 and (dim < shift or args[0].shape[dim - shift] == 1):
            blocks.append(Block((dim,), tracer.new_atoms(out.shape[dim])))
    tracer.set(out, blocks, constant=facts.constant)


@_rule("repeat")
def _repeat(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x, times = args[0], args[1]
    tracer.settle(x)
    shift = out.ndim - x.ndim
    blocks = _move(tracer.facts(x).blocks, lambda d: d + shift)
    tracer.set(out, [Block(b.dims, np.tile(b.atoms, times[b.dims[0]])) for b in blocks])


def _taken(tracer: Tracer, x: Tensor, out: Tensor, dim: int, index: Any, *, drop: bool = False) -> None:
    """A part of a tensor along one dimension."""
    facts = tracer.facts(x)
    blocks = []
    for block in facts.blocks:
        dims, atoms = block
        if dim in dims:
            axis = dims.index(dim)
            atoms = atoms[(slice(None),) * axis + (index,)]
            if drop:
                dims = dims[:axis] + dims[axis + 1 :]
        if dims:
            blocks.append(Block(tuple(d - (drop and d > dim) for d in dims), atoms))
            if dim in dims and len(dims) == 1:
                tracer.read(atoms)
    tracer.set(out, blocks, constant=facts.constant)


@_rule("slice narrow")
def _slice(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x, dim, start, end = args[0], args[1] or 0, args[2], args[3]
    step = args[4] if len(args) > 4 and args[4] else 1
    _taken(tracer, x, out, dim % x.ndim, slice(start, end, step))


@_rule("select")
def _select(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x, dim, place = args[0], args[1] % args[0].ndim, args[2]
    alone = next((b for b in tracer.facts(x).blocks if b.dims == (dim,)), None)
    if alone is not None:
        tracer.pin(alone.atoms[[place]], "picked out by its index")
    _taken(tracer, x, out, dim, place, drop=True)


@_rule("unbind")
def _unbind(tracer: Tracer, args: Sequence[Any], out: Sequence[Tensor]) -> None:
    for place, part in enumerate(out):
        _select(tracer, [args[0], args[1] or 0, place], part)


@_rule("split split_with_sizes chunk tensor_split split_copy split_with_sizes_copy unsafe_split unsafe_chunk")
def _split(tracer: Tracer, args: Sequence[Any], out: Sequence[Tensor]) -> None:
    x, dim = args[0], (args[2] if len(args) > 2 and args[2] is not None else 0) % args[0].ndim
    alone = next((b for b in tracer.facts(x).blocks if b.dims == (dim,)), None)
    if alone is not None and len({part.shape[dim] for part in out}) == 1:
        # Equal parts stay equal: where each begins is reckoned from the length of the whole.
        _across(tracer, alone.atoms, len(out))
    start = 0
    for part in out:
        _taken(tracer, x, part, dim, slice(start, start + part.shape[dim]))
        start += part.shape[dim]


@_rule("index_select")
def _index_select(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x, dim = args[0], args[1] % args[0].ndim
    if tracer.along(x, dim) is not None:
        tracer.pin_all(x, "picked out by index")
        return
    _taken(tracer, x, out, dim, slice(None))


@_rule("index")
def _index(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x, indices = args[0], args[1]
    places = [d for d, index in enumerate(indices) if index is not None]
    spans = sum(i.ndim if i.dtype is torch.bool else 1 for i in indices if i is not None)
    if any(i is not None and i.dtype is torch.bool for i in indices) and len(places) > 1:
        tracer.pin_all(x, "picked out by index")
        return
    if not places or places != list(range(places[0], places[-1] + 1)):
        tracer.pin_all(x, "picked out by index")
        return
    tracer.settle(x)
    first, grown = places[0], out.ndim - x.ndim
    blocks = []
    for block in tracer.facts(x).blocks:
        dim = block.dims[0]
        if first <= dim < first + spans:
            tracer.pin(block.atoms, "picked out by index")
        else:
            blocks.append(Block((dim if dim < first else dim + grown,), block.atoms))
    tracer.set(out, blocks)


@_rule("cat concatenate")
def _cat(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    parts = [x for x in args[0] if x.numel()]
    dim = (args[1] or 0) % out.ndim
    for x in parts:
        tracer.settle(x)
    found = [tracer.along(x, dim) for x in parts]
    blocks = []
    if any(atoms is not None for atoms in found):
        pieces = [a if a is not None else np.zeros(x.shape[dim], int) for a, x in zip(found, parts, strict=True)]
        blocks.append(Block((dim,), np.concatenate(pieces)))
    blocks += _others(tracer, parts, dim, out.ndim)
    tracer.set(out, blocks)


def _others(tracer: Tracer, parts: Sequence[Tensor], dim: int, ndim: int) -> list[Block]:
    """Atoms of the dimensions along which tensors are not put together."""
    blocks = []
    for other in range(ndim):
        if other != dim:
            found = [tracer.along(x, other) for x in parts]
            first = next((atoms for atoms in found if atoms is not None), None)
            for atoms in found:
                tracer.unify(first, atoms)
            if first is not None and _goes_on(tracer, first, found):
                blocks.append(Block((other,), first))
    return blocks


@_rule("stack")
def _stack(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    parts, dim = args[0], (args[1] or 0) % out.ndim
    for x in parts:
        tracer.settle(x)
    blocks = _others(tracer, parts, -1, out.ndim - 1)
    tracer.set(out, _move(blocks, lambda d: d + (d >= dim)))


@_rule("constant_pad_nd")
def _constant_pad(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x, pad = args[0], args[1]
    tracer.settle(x)
    blocks = []
    for block in tracer.facts(x).blocks:
        k = 2 * (x.ndim - 1 - block.dims[0])
        sides = pad[k : k + 2] or [0, 0]
        if min(sides) < 0:
            tracer.pin(block.atoms, "is cropped")
        else:
            blocks.append(Block(block.dims, np.pad(block.atoms, sides)))
    tracer.set(out, blocks)


@_rule("roll flip rot90")
def _roll(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x = args[0]
    dims = {d % x.ndim for d in (args[2] if len(args) > 2 else args[1])}
    tracer.settle(x)
    for block in tracer.facts(x).blocks:
        if not dims or block.dims[0] in dims:
            tracer.pin(block.atoms, "changes its order")
    tracer.set(out, [b for b in tracer.facts(x).blocks if dims and b.dims[0] not in dims])


@_rule("pixel_shuffle")
def _pixel_shuffle(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x, dim = args[0], args[0].ndim - 3
    atoms = tracer.along(x, dim)
    blocks = [b for b in tracer.facts(x).blocks if b.dims[0] < dim]
    if atoms is not None:
        block = Block((dim, dim + 1), atoms.reshape(out.shape[dim], -1))
        blocks.append(tracer.tie(block, 0, heads=False))
    tracer.set(out, blocks)


@_rule("channel_shuffle native_channel_shuffle")
def _channel_shuffle(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x, groups = args[0], args[1]
    tracer.settle(x)
    blocks = []
    for block in tracer.facts(x).blocks:
        if block.dims == (1,):
            _across(tracer, block.atoms, groups)
            block = Block((1,), block.atoms.reshape(groups, -1).T.ravel())
        blocks.append(block)
    tracer.set(out, blocks)


@_rule("_pack_padded_sequence _pad_packed_sequence")
def _pack(tracer: Tracer, args: Sequence[Any], out: Sequence[Tensor]) -> None:
    """Time and batch become one dimension, or come apart again."""
    x, data = args[0], out[0]
    tracer.settle(x)
    blocks = []
    for block in tracer.facts(x).blocks:
        if block.dims[0] == x.ndim - 1:
            blocks.append(Block((data.ndim - 1,), block.atoms))
        else:
            tracer.pin(block.atoms, "is packed as time or batch")
    tracer.set(data, blocks)


# Products


@_rule("mm bmm mv matmul")
def _product(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    tracer.set(out, _contracted(tracer, args[0], args[1], out))


@_rule("addmm addmv baddbmm _addmm_activation addbmm")
def _add_product(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    bias, one, other = args[:3]
    tracer.set(out, _contracted(tracer, one, other, out))
    tracer.set(out, _unified(tracer, [out, bias], out.ndim))


@_rule("linear mkldnn_linear _mkldnn_linear")
def _linear(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x, weight, bias = args[0], args[1], args[2]
    features = tracer.along(x, -1)
    _consume(tracer, features, tracer.along(weight, 1), weight, x)
    blocks = [b for b in tracer.facts(x).blocks if b.dims[0] != x.ndim - 1]
    outs = tracer.along(weight, 0)
    if outs is not None:
        blocks.append(Block((out.ndim - 1,), outs))
    tracer.set(out, blocks)
    tracer.cost(prod(x.shape[:-1]), _extent(tracer, weight, 0), _extent(tracer, weight, 1))
    if bias is not None:
        tracer.set(out, _unified(tracer, [out, bias], out.ndim))


def _contracted(tracer: Tracer, one: Tensor, other: Tensor, out: Tensor) -> list[Block]:
    """(b, n, k) x (b, k, m), without b, and without m for a vector."""
    tracer.settle(one)
    tracer.settle(other)
    inner = other.ndim - 2 if other.ndim > 1 else 0
    left, right = tracer.along(one, -1), tracer.along(other, inner)
    if tracer.facts(other).constant or not tracer.facts(one).constant:
        _consume(tracer, left, right, other, one)
    else:
        _consume(tracer, right, left, one, other)
    blocks = []
    for dim in range(out.ndim):
        if dim < one.ndim - 2:
            atoms = tracer.along(one, dim)
            tracer.unify(atoms, tracer.along(other, dim))
        elif dim == one.ndim - 2:
            atoms = tracer.along(one, dim)
        else:
            atoms = tracer.along(other, -1)
        if atoms is not None:
            blocks.append(Block((dim,), atoms))
    last = [_extent(tracer, other, other.ndim - 1)] if other.ndim > 1 else []
    tracer.cost(1, *(_extent(tracer, one, dim) for dim in range(one.ndim)), *last)
    return blocks


def _consume(tracer: Tracer, features: Atoms | None, reads: Atoms | None, weight: Tensor, x: Tensor) -> None:
    """Features of `x` are contracted with a dimension of `weight`."""
    tracer.unify(features, reads, "reads fixed features" if features is None else "is multiplied with fixed features")
    if features is None or reads is None:
        return
    if tracer.facts(weight).constant:
        tracer.consume(reads)
    else:
        tracer.pin(features, "two activations are multiplied over it")


def _extent(tracer: Tracer, x: Tensor, dim: int) -> Atoms | int:
    atoms = tracer.along(x, dim)
    return x.shape[dim] if atoms is None else atoms


@_rule("convolution _convolution convolution_overrideable mkldnn_convolution cudnn_convolution")
def _convolution(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x, weight, bias = args[:3]
    transposed, groups = args[6], args[8]
    for dim in range(2, x.ndim):
        spatial = tracer.along(x, dim)
        if spatial is not None:
            tracer.pin(spatial, "is convolved over")
    # (out, in / groups, ...) or, transposed, (in, out / groups, ...).
    rows, columns = tracer.along(weight, 0), tracer.along(weight, 1)
    if groups == 1:
        reads, made = (rows, columns) if transposed else (columns, rows)
        _consume(tracer, tracer.along(x, 1), reads, weight, x)
    elif x.shape[1] == groups:
        made = _depthwise(tracer, tracer.along(x, 1), rows, columns, out.shape[1] // groups, transposed)
    else:
        made = _grouped_convolution(tracer, tracer.along(x, 1), rows, columns, groups, transposed)
    blocks = [Block((d,), a) for d, a in ((0, tracer.along(x, 0)), (1, made)) if a is not None]
    tracer.set(out, blocks)
    positions = prod((x if transposed else out).shape[2:]) * prod(weight.shape[2:]) * x.shape[0]
    tracer.cost(positions, _extent(tracer, weight, 0), _extent(tracer, weight, 1))
    if bias is not None:
        tracer.unify(made, tracer.along(bias, 0))


def _depthwise(
    tracer: Tracer, channels: Atoms | None, rows: Atoms | None, columns: Atoms | None, filters: int, transposed: bool
) -> Atoms | None:
    """Each channel has filters of its own and passes through."""
    made = None if channels is None else np.repeat(channels, filters)
    if transposed:
        tracer.unify(channels, rows)
        if columns is not None:
            tracer.pin(columns, "belongs to a depthwise convolution")
    else:
        tracer.unify(made, rows)
    return made


def _grouped_convolution(
    tracer: Tracer, channels: Atoms | None, rows: Atoms | None, columns: Atoms | None, groups: int, transposed: bool
) -> Atoms | None:
    """Every group of channels loses the same ones, so that the number of groups stays."""
    reads = _across(tracer, rows, groups) if transposed else columns
    if channels is None or reads is None:
        tracer.unify(channels, reads, "reads fixed features")
    else:
        tracer.unify(channels.reshape(groups, -1), np.broadcast_to(reads, (groups, len(reads))))
        tracer.consume(rows if transposed else columns)
    if transposed:
        return None if columns is None else np.tile(columns, groups)
    _across(tracer, rows, groups)
    return rows


def _across(tracer: Tracer, atoms: Atoms | None, groups: int) -> Atoms | None:
    """Tie the j-th channels of all groups; the first group's atoms."""
    if atoms is None:
        return None
    table = atoms.reshape(groups, -1)
    tracer.unify(table, np.broadcast_to(table[0], table.shape))
    return table[0]


@_rule(
    "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention scaled_dot_product_attention "
    "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention _scaled_dot_product_attention_math "
    "_scaled_dot_product_fused_attention_overrideable _scaled_dot_product_attention_math_for_mps"
)
def _attention(tracer: Tracer, args: Sequence[Any], out: Any) -> None:
    query, key, value = args[:3]
    for x in (query, key, value):
        tracer.settle(x)
    for x, dims in ((query, (2, 3)), (key, (2, 3)), (value, (2,))):
        for dim in dims:
            atoms = tracer.along(x, dim - 4 + x.ndim)
            if atoms is not None:
                tracer.pin(atoms, "two activations are multiplied over it")
    heads = tracer.along(query, -3)
    for x in (key, value):
        theirs = tracer.along(x, -3)
        share = query.shape[-3] // x.shape[-3]
        tracer.unify(heads, theirs if theirs is None else np.repeat(theirs, share))
    for mask in _tensors(args[3:]):
        if mask.ndim >= 3 and mask.shape[-3] > 1:
            tracer.unify(heads, tracer.along(mask, -3))
    result = out if isinstance(out, Tensor) else out[0]
    features = tracer.along(value, -1)
    found = ((0, tracer.along(query, 0)), (result.ndim - 3, heads), (result.ndim - 1, features))
    tracer.set(result, [Block((d,), atoms) for d, atoms in found if atoms is not None])
    batch, length, source = prod(query.shape[:-3]), query.shape[-2], key.shape[-2]
    tracer.cost(batch * length * source, _extent(tracer, query, -3), query.shape[-1])
    tracer.cost(batch * length * source, _extent(tracer, query, -3), _extent(tracer, value, -1))


# Normalisation, reductions, pooling


@_rule(
    "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm "
    "miopen_batch_norm _batch_norm_with_update _batch_norm_no_update batch_norm"
)
def _batch_norm(tracer: Tracer, args: Sequence[Any], out: Any) -> None:
    x = args[0]
    channels = tracer.along(x, 1)
    for tensor in _tensors(args[1:5]):
        tracer.unify(channels, tracer.along(tensor, 0))
    results = _tensors([out])
    tracer.set(results[0], tracer.facts(x).blocks)
    for other in results[1:]:
        if channels is not None and other.shape == (len(channels),):
            tracer.set(other, [Block((0,), channels)])


@_rule("native_layer_norm layer_norm")
def _layer_norm(tracer: Tracer, args: Sequence[Any], out: Any) -> None:
    x, shape, weight, bias = args[:4]
    result = _tensors([out])[0]
    tracer.settle(x)
    if len(shape) == 1:
        _normalize(tracer, x, weight, bias, kind=nn.LayerNorm)
    else:
        for dim in range(x.ndim - len(shape), x.ndim):
            atoms = tracer.along(x, dim)
            if atoms is not None:
                tracer.pin(atoms, "is normalised together with other dimensions")
    tracer.set(result, tracer.facts(x).blocks)


def _normalize(tracer: Tracer, x: Tensor, weight: Tensor | None, bias: Tensor | None, kind: type) -> None:
    """Statistics over the last dimension of x."""
    channels = tracer.along(x, -1)
    for tensor in (weight, bias):
        if tensor is not None:
            tracer.unify(channels, tracer.along(tensor, 0))
    if channels is None:
        return
    if weight is None:
        tracer.pin(channels, "is normalised without a weight")
        return
    dim = _input_dim(tracer, channels)
    if dim is None or not isinstance(tracer.modules.get(tracer.here), kind):
        tracer.pin(channels, "is normalised outside a norm module")
    else:
        tracer.normed(dim, channels)


def _input_dim(tracer: Tracer, channels: Atoms) -> int | None:
    """The dimension of the running module's input on which these atoms stand, -1 for the last."""
    x = tracer.input_here
    if x is None:
        return None
    for dim in range(x.ndim - 1, -1, -1):
        atoms = tracer.along(x, dim)
        if atoms is not None and np.array_equal(atoms, channels):
            return -1 if dim == x.ndim - 1 else dim
    return None


@_rule("native_group_norm group_norm")
def _group_norm(tracer: Tracer, args: Sequence[Any], out: Any) -> None:
    x, weight, bias = args[:3]
    groups = args[6] if len(args) > 6 else args[1]
    channels = tracer.along(x, 1)
    for tensor in (weight, bias):
        if isinstance(tensor, Tensor):
            tracer.unify(channels, tracer.along(tensor, 0))
    if channels is not None and groups < len(channels):
        if weight is None or not isinstance(tracer.modules.get(tracer.here), nn.GroupNorm):
            tracer.pin(channels, "is normalised outside a norm module")
        else:
            _across(tracer, channels, groups)
            tracer.normed(1, channels)
    elif channels is not None and weight is None:
        tracer.pin(channels, "is normalised without a weight")
    tracer.set(_tensors([out])[0], tracer.facts(x).blocks)


@_rule("_weight_norm_interface _weight_norm")
def _weight_norm(tracer: Tracer, args: Sequence[Any], out: Any) -> None:
    direction, length, dim = args[:3]
    keep = dim % direction.ndim
    for other in range(direction.ndim):
        atoms = tracer.along(direction, other)
        if other != keep and atoms is not None:
            tracer.pin(atoms, "is normalised with its weight")
    atoms = tracer.along(direction, keep)
    tracer.unify(atoms, tracer.along(length, keep))
    if atoms is not None:
        tracer.set(_tensors([out])[0], [Block((keep,), atoms)], constant=True)


@_rule("_softmax softmax _log_softmax log_softmax cumsum cumprod _safe_softmax logcumsumexp")
def _along_dim(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x, dim = args[0], args[1] % max(args[0].ndim, 1)
    atoms = tracer.along(x, dim) if x.ndim else None
    if atoms is not None:
        tracer.pin(atoms, "is normalised or summed over")
    tracer.set(out, tracer.facts(x).blocks)


@_rule(
    "sum mean amax amin var std var_mean std_mean linalg_vector_norm norm argmax argmin any all prod logsumexp max min "
    "aminmax median nansum count_nonzero"
)
def _reduce(tracer: Tracer, args: Sequence[Any], out: Any) -> None:
    x = args[0]
    if not isinstance(x, Tensor) or not x.ndim:
        return
    if len(args) > 1 and isinstance(args[1], Tensor):
        _pointwise(tracer, [x, args[1]], out)
        return
    result = _tensors([out])[0]
    dims = _reduced(x, result)
    given = next((a for a in args[1:3] if isinstance(a, int | list | tuple) and not isinstance(a, bool)), None)
    if given is not None and given != []:
        dims = {d % x.ndim for d in ([given] if isinstance(given, int) else given)}
    tracer.settle(x)
    blocks = []
    for block in tracer.facts(x).blocks:
        if block.dims[0] in dims:
            tracer.pin_if_read(_tensors([out]), block.atoms, "is averaged or summed over")
        else:
            blocks.append(block)
    if result.ndim < x.ndim:
        blocks = _move(blocks, lambda d: d - sum(other < d for other in dims))
    for each in _tensors([out]):
        tracer.set(each, blocks)


def _reduced(x: Tensor, result: Tensor) -> set[int]:
    if result.ndim == x.ndim:
        return {d for d in range(x.ndim) if result.shape[d] != x.shape[d]}
    return set(range(x.ndim))


def _spatial(dimensions: int) -> Rule:
    def rule(tracer: Tracer, args: Sequence[Any], out: Any) -> None:
        x = args[0]
        tracer.settle(x)
        blocks = []
        for block in tracer.facts(x).blocks:
            if block.dims[0] >= x.ndim - dimensions:
                tracer.pin(block.atoms, "is pooled or interpolated over")
            else:
                blocks.append(block)
        for result in _tensors([out]):
            tracer.set(result, blocks)

    return rule


for _n in (1, 2, 3):
    _names = (
        "max_pool{n}d_with_indices max_pool{n}d avg_pool{n}d adaptive_avg_pool{n}d _adaptive_avg_pool{n}d "
        "adaptive_max_pool{n}d upsample_nearest{n}d _upsample_nearest_exact{n}d reflection_pad{n}d replication_pad{n}d "
        "mkldnn_max_pool{n}d fractional_max_pool{n}d lp_pool{n}d"
    )
    _RULES.update(dict.fromkeys(_names.format(n=_n).split(), _spatial(_n)))
_RULES.update(
    {
        "upsample_linear1d": _spatial(1),
        "upsample_bilinear2d": _spatial(2),
        "upsample_bicubic2d": _spatial(2),
        "_upsample_bilinear2d_aa": _spatial(2),
        "_upsample_bicubic2d_aa": _spatial(2),
        "upsample_trilinear3d": _spatial(3),
        "grid_sampler_2d": _spatial(2),
    }
)


@_rule("embedding")
def _embedding(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    features = tracer.along(args[0], 1)
    tracer.set(out, [] if features is None else [Block((out.ndim - 1,), features)])


# Modules that are understood as a whole


def module_rule(module: nn.Module) -> ModuleRule | None:
    """The rule of a module whose forward is not followed operator by operator."""
    if isinstance(module, nn.RNNBase):
        return _recurrent
    if isinstance(module, nn.RNNCellBase):
        return _recurrent_cell
    return _rms_norm if is_rms_norm(module) else None


def is_rms_norm(module: nn.Module) -> bool:
    """Whether a module computes weight * x / sqrt(mean(x^2) + eps) over the last dimension: tried on random input."""
    weight = getattr(module, "weight", None)
    names = {name for name, _ in module.named_parameters()}
    if names != {"weight"} or not isinstance(weight, Tensor) or weight.ndim != 1 or list(module.children()):
        return False
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not isinstance(eps, float | None) or not re.search("rms|norm", type(module).__name__, re.IGNORECASE):
        return False
    x = torch.randn(2, 3, len(weight), generator=torch.Generator().manual_seed(0)).to(weight)
    try:
        with torch.no_grad():
            expected = nn.functional.rms_norm(x, (len(weight),), weight, eps)
            got = module(x)
    except Exception:
        # Whatever it is, it is no RMS norm.
        return False
    return isinstance(got, Tensor) and got.shape == x.shape and torch.allclose(got, expected, rtol=1e-2, atol=1e-4)


def _rms_norm(tracer: Tracer, module: nn.Module, args: tuple, kwargs: dict, out: Any) -> None:
    x = next(iter(_tensors([*args, *kwargs.values()])))
    tracer.settle(x)
    _normalize(tracer, x, module.weight, None, kind=nn.Module)  # type: ignore[arg-type]
    tracer.set(out, tracer.facts(x).blocks)


def _recurrent(tracer: Tracer, module: nn.Module, args: tuple, kwargs: dict, out: Any) -> None:
    """Unit h of every layer and direction goes together: the module has one hidden size."""
    assert isinstance(module, nn.RNNBase)
    operands = [*args, *kwargs.values()]
    x = operands[0].data if isinstance(operands[0], PackedSequence) else operands[0]
    results = out[0].data if isinstance(out[0], PackedSequence) else out[0]
    if module.proj_size:
        for tensor in (x, *module.parameters()):
            tracer.pin_all(tensor, "belongs to a recurrent network with projections")
        return
    directions, hidden = 1 + module.bidirectional, module.hidden_size
    weights = dict(module.named_parameters())
    units = tracer.along(weights["weight_hh_l0"], 1)
    if units is None:
        return
    features = tracer.along(x, -1)
    steps = x.shape[0] if isinstance(operands[0], PackedSequence) else prod(x.shape[:-1])
    for name, weight in weights.items():
        rows = tracer.along(weight, 0)
        if rows is not None:
            tracer.unify(rows.reshape(-1, hidden), np.broadcast_to(units, (len(rows) // hidden, hidden)))
        if name.startswith("weight_hh"):
            columns = tracer.along(weight, 1)
            tracer.unify(units, columns)
            tracer.consume(columns)
        elif name.startswith("weight_ih"):
            columns = tracer.along(weight, 1)
            reads = features if name.startswith("weight_ih_l0") else np.tile(units, directions)
            _consume(tracer, reads, columns, weight, x)
        if name.startswith("weight"):
            tracer.cost(steps, _extent(tracer, weight, 0), _extent(tracer, weight, 1))
    made = np.tile(units, directions)
    tracer.set(results, [Block((results.ndim - 1,), made)])
    for state in output_tensors(out[1]):
        tracer.set(state, [Block((state.ndim - 1,), units)])
    for state in _tensors(operands[1:]):
        tracer.unify(tracer.along(state, -1), units, "is the size of a given state")


def _recurrent_cell(tracer: Tracer, module: nn.Module, args: tuple, kwargs: dict, out: Any) -> None:
    """One step of a recurrent layer; a state that is not given is zero, in the module's hidden size."""
    x, *states = _tensors([*args, *kwargs.values()])
    weights = dict(module.named_parameters())
    units = tracer.along(weights["weight_hh"], 1)
    if units is None:
        return
    for weight in weights.values():
        rows = tracer.along(weight, 0)
        if rows is not None:
            tracer.unify(rows.reshape(-1, len(units)), np.broadcast_to(units, (len(rows) // len(units), len(units))))
    tracer.consume(units)
    _consume(tracer, tracer.along(x, -1), tracer.along(weights["weight_ih"], 1), weights["weight_ih"], x)
    for name in ("weight_ih", "weight_hh"):
        tracer.cost(prod(x.shape[:-1]), _extent(tracer, weights[name], 0), _extent(tracer, weights[name], 1))
    for state in states:
        tracer.unify(tracer.along(state, -1), units, "is the size of a given state")
    for result in _tensors([out]):
        tracer.set(result, [Block((result.ndim - 1,), units)])
