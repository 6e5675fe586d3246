"""Operators that rearrange, take apart or put together."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from l0prune.operators.elementwise import goes_on
from l0prune.operators.rules import across, move, rule
from l0prune.tracing import Block, Tracer


@rule("view _unsafe_view reshape unsqueeze squeeze flatten _reshape_alias unflatten")
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


@rule("as_strided")
def _as_strided(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x = args[0]
    # Only dimensions of one element may change their stride without a change of meaning.
    same = x.shape == out.shape and x.storage_offset() == out.storage_offset()
    if same and all(a == b for a, b, n in zip(x.stride(), out.stride(), x.shape, strict=True) if n > 1):
        tracer.set(out, tracer.facts(x).blocks, constant=tracer.facts(x).constant)
    else:
        tracer.pin_all(x, "read by as_strided, which has no rule,")


@rule("permute")
def _permute(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x, order = args[0], [d % args[0].ndim for d in args[1]]
    facts = tracer.facts(x)
    tracer.set(out, move(facts.blocks, order.index), constant=facts.constant)


@rule("transpose t numpy_T")
def _transpose(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x = args[0]
    one, other = (args[1] % x.ndim, args[2] % x.ndim) if len(args) > 2 else (0, x.ndim - 1)
    swap = {one: other, other: one}
    facts = tracer.facts(x)
    tracer.set(out, move(facts.blocks, lambda d: swap.get(d, d)), constant=facts.constant)


@rule("expand")
def _expand(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    facts = tracer.facts(args[0])
    shift = out.ndim - args[0].ndim
    blocks = move(facts.blocks, lambda d: d + shift)
    for dim in range(out.ndim):
        if out.shape[dim] > 1 and (dim < shift or args[0].shape[dim - shift] == 1):
            blocks.append(Block((dim,), tracer.new_atoms(out.shape[dim])))
    tracer.set(out, blocks, constant=facts.constant)


@rule("repeat")
def _repeat(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x, times = args[0], args[1]
    tracer.settle(x)
    shift = out.ndim - x.ndim
    blocks = move(tracer.facts(x).blocks, lambda d: d + shift)
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


@rule("slice narrow")
def _slice(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x, dim, start, end = args[0], args[1] or 0, args[2], args[3]
    step = args[4] if len(args) > 4 and args[4] else 1
    _taken(tracer, x, out, dim % x.ndim, slice(start, end, step))


@rule("select")
def _select(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x, dim, place = args[0], args[1] % args[0].ndim, args[2]
    alone = next((b for b in tracer.facts(x).blocks if b.dims == (dim,)), None)
    if alone is not None:
        tracer.pin(alone.atoms[[place]], "picked out by its index")
    _taken(tracer, x, out, dim, place, drop=True)


@rule("unbind")
def _unbind(tracer: Tracer, args: Sequence[Any], out: Sequence[Tensor]) -> None:
    for place, part in enumerate(out):
        _select(tracer, [args[0], args[1] or 0, place], part)


@rule("split split_with_sizes chunk tensor_split split_copy split_with_sizes_copy unsafe_split unsafe_chunk")
def _split(tracer: Tracer, args: Sequence[Any], out: Sequence[Tensor]) -> None:
    x, dim = args[0], (args[2] if len(args) > 2 and args[2] is not None else 0) % args[0].ndim
    alone = next((b for b in tracer.facts(x).blocks if b.dims == (dim,)), None)
    if alone is not None and len({part.shape[dim] for part in out}) == 1:
        # Equal parts stay equal: where each begins is reckoned from the length of the whole.
        across(tracer, alone.atoms, len(out))
    start = 0
    for part in out:
        _taken(tracer, x, part, dim, slice(start, start + part.shape[dim]))
        start += part.shape[dim]


@rule("index_select")
def _index_select(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x, dim = args[0], args[1] % args[0].ndim
    if tracer.along(x, dim) is not None:
        tracer.pin_all(x, "picked out by index")
        return
    _taken(tracer, x, out, dim, slice(None))


@rule("index")
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


@rule("cat concatenate")
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
            if first is not None and goes_on(tracer, first, found):
                blocks.append(Block((other,), first))
    return blocks


@rule("stack")
def _stack(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    parts, dim = args[0], (args[1] or 0) % out.ndim
    for x in parts:
        tracer.settle(x)
    blocks = _others(tracer, parts, -1, out.ndim - 1)
    tracer.set(out, move(blocks, lambda d: d + (d >= dim)))


@rule("constant_pad_nd")
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


@rule("roll flip rot90")
def _roll(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x = args[0]
    dims = {d % x.ndim for d in (args[2] if len(args) > 2 else args[1])}
    tracer.settle(x)
    for block in tracer.facts(x).blocks:
        if not dims or block.dims[0] in dims:
            tracer.pin(block.atoms, "changes its order")
    tracer.set(out, [b for b in tracer.facts(x).blocks if dims and b.dims[0] not in dims])


@rule("pixel_shuffle")
def _pixel_shuffle(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x, dim = args[0], args[0].ndim - 3
    atoms = tracer.along(x, dim)
    blocks = [b for b in tracer.facts(x).blocks if b.dims[0] < dim]
    if atoms is not None:
        block = Block((dim, dim + 1), atoms.reshape(out.shape[dim], -1))
        blocks.append(tracer.tie(block, 0, heads=False))
    tracer.set(out, blocks)


@rule("channel_shuffle native_channel_shuffle")
def _channel_shuffle(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x, groups = args[0], args[1]
    tracer.settle(x)
    blocks = []
    for block in tracer.facts(x).blocks:
        if block.dims == (1,):
            across(tracer, block.atoms, groups)
            block = Block((1,), block.atoms.reshape(groups, -1).T.ravel())
        blocks.append(block)
    tracer.set(out, blocks)


@rule("_pack_padded_sequence _pad_packed_sequence")
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
