"""Operators that rearrange: views, permutations, shuffles."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
from torch import Tensor

from l0prune.discovery.rules.registry import across, move, rule
from l0prune.discovery.traced import Block
from l0prune.discovery.tracer import Tracer


@rule("view _unsafe_view reshape unsqueeze squeeze flatten _reshape_alias unflatten")
def _reshape(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x = args[0]
    facts = tracer.facts(x)
    if not facts.blocks:
        return
    factors = factors_of(tuple(x.shape), tuple(out.shape))
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
        # A dimension that was expanded, or a mask's, gives way to one with units of its own.
        for _, atoms in split:
            if tracer.is_of_no_layer(atoms):
                tracer.pin(atoms, "is flattened together with other channels")
        split = [(axes, atoms) for axes, atoms in split if not tracer.is_of_no_layer(atoms)]
    blocks, taken = [], set()
    # Of several heads stay, rather than places within them; else the longest, units of experts rather than experts.
    for axes, atoms in sorted(split, key=lambda part: (not tracer.are_heads(part[1]), -part[1].size)):
        if taken & {owner[k] for k in axes}:
            tracer.pin(atoms, "is flattened together with other channels")
            continue
        taken |= {owner[k] for k in axes}
        blocks.append(_merge(tracer, axes, atoms, sizes, outer, owner))
    tracer.set(out, blocks, constant=facts.constant)
    for block in blocks:
        if len(block.dims) == 1:
            tracer.read(block.atoms)


@rule("unsqueeze_")
def _unsqueeze_in_place(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    """The tensor has its new shape already."""
    facts, at = tracer.facts(out), args[1] % out.ndim
    tracer.set(out, move(facts.blocks, lambda d: d + (d >= at)), constant=facts.constant)


@rule("squeeze_")
def _squeeze_in_place(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    """The tensor has its new shape already: which dimensions are gone shows in where its units fit."""
    facts, given = tracer.facts(out), args[1] if len(args) > 1 else ()
    dims = [given] if isinstance(given, int) else [*given]
    gone = {d % (out.ndim + len(dims)) for d in dims}
    fitting = [
        blocks
        for blocks in ([*facts.blocks], move(facts.blocks, lambda d: d - sum(k < d for k in gone)))
        if all(max(b.dims) < out.ndim and b.atoms.shape == tuple(out.shape[d] for d in b.dims) for b in blocks)
    ]
    if len({tuple(b.dims for b in blocks) for blocks in fitting}) == 1:
        tracer.set(out, fitting[0], constant=facts.constant)
    else:
        tracer.pin_all(out, "is reshaped in place")
        tracer.set(out, [])


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


def factors_of(
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


@rule("pixel_shuffle")
def _pixel_shuffle(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x, dim = args[0], args[0].ndim - 3
    atoms = tracer.along(x, dim)
    blocks = [b for b in tracer.facts(x).blocks if b.dims[0] < dim]
    if atoms is not None:
        block = Block((dim, dim + 1), atoms.reshape(out.shape[dim], -1))
        blocks.append(tracer.tie(block, 0, heads=False))
    tracer.set(out, blocks)


@rule("pixel_unshuffle")
def _pixel_unshuffle(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    """Each channel becomes r * r of them, next to each other."""
    x, dim = args[0], args[0].ndim - 3
    tracer.settle(x)
    blocks = []
    for block in tracer.facts(x).blocks:
        if block.dims[0] > dim:
            tracer.pin(block.atoms, "is reshaped across its channels")
        else:
            wide = np.repeat(block.atoms, args[1] ** 2) if block.dims[0] == dim else block.atoms
            blocks.append(Block(block.dims, wide))
    tracer.set(out, blocks)


@rule("view_as_real")
def _view_as_real(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    facts = tracer.facts(args[0])
    tracer.set(out, facts.blocks, constant=facts.constant)


@rule("view_as_complex")
def _view_as_complex(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x = args[0]
    tracer.settle(x)
    facts = tracer.facts(x)
    for block in facts.blocks:
        if block.dims[0] == x.ndim - 1:
            tracer.pin(block.atoms, "becomes a complex number")
    tracer.set(out, [b for b in facts.blocks if b.dims[0] < x.ndim - 1], constant=facts.constant)


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
