"""Operators that take apart or put together: slices, splits, concatenation, padding."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from l0prune.discovery.rules.elementwise import goes_on
from l0prune.discovery.rules.experts import picked_experts, rank
from l0prune.discovery.rules.registry import across, move, rule, tensors
from l0prune.discovery.traced import UNRANKED, Block
from l0prune.discovery.tracer import Tracer


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
    if alone is not None and int(alone.atoms[0]) not in tracer.experts:
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


def _from_the_end(index: Tensor) -> list[int] | None:
    """The places that an index counts from the end, as a list in the code does; None where one counts otherwise."""
    if index.dtype is torch.bool or index.numel() > _WRITTEN or not index.numel() or index.device.type != "cpu":
        return None
    places = index.flatten().tolist()
    return places if max(places) < 0 else None


_WRITTEN = 8
"""Places up to which an index may be written in the code; data picks others, and by numbers from the beginning."""


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
    from_end = _from_the_end(indices[first]) if spans == 1 else None
    experts = len(places) == spans == 1 and _picks_experts(tracer, x, indices[first], first)
    # Matrices of a parameter, one for each expert, or for something else.
    stacked = experts or (first == 0 and len(places) == spans == 1 and x.ndim > _MATRIX and tracer.facts(x).constant)
    blocks = []
    for block in tracer.facts(x).blocks:
        dim = block.dims[0]
        if stacked and dim == first:
            if not experts:
                tracer.pin(block.atoms, UNRANKED)
            continue
        if first <= dim < first + spans:
            tracer.pin(block.atoms if from_end is None else block.atoms[from_end], "picked out by index")
        else:
            blocks.append(Block((dim if dim < first else dim + grown,), block.atoms))
    # Of the weights of picked experts all else is what it is of all.
    tracer.set(out, blocks, constant=stacked and tracer.facts(x).constant)


_MATRIX = 2
"""Dimensions of a matrix; a stack of them has more."""


def _picks_experts(tracer: Tracer, x: Tensor, numbers: Tensor, dim: int) -> bool:
    places = tracer.along(x, dim)
    if places is not None and int(places[0]) in tracer.experts:
        return True
    return picked_experts(tracer, x, numbers, dim)


@rule("index_put _index_put_impl _unsafe_index_put")
def _index_put(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    """Values take places that an index picks; along the other dimensions they are as long as what they are put into."""
    x, indices, values = args[:3]
    picks = [i for i in indices if i is not None]
    places = [d for d, index in enumerate(indices) if index is not None]
    spans = sum(i.ndim if i.dtype is torch.bool else 1 for i in picks)
    if places != list(range(places[0], places[-1] + 1)) or (
        len(picks) > 1 and any(i.dtype is torch.bool for i in picks)
    ):
        for operand in (x, values):
            tracer.pin_all(operand, "picked out by index")
        return
    for operand in (x, values):
        tracer.settle(operand)
    first, end = places[0], places[0] + spans
    grown = max(1 if i.dtype is torch.bool else i.ndim for i in picks) - spans
    blank = [t for t in (x, values) if not tracer.facts(t).blocks and tracer.blank_under(t) is not None]
    blocks = []
    for dim in range(x.ndim):
        at = dim + (grown if dim >= end else 0) - (x.ndim + grown) + values.ndim
        atoms = tracer.along(x, dim)
        if first <= dim < end:
            if atoms is not None:
                tracer.pin(atoms, "picked out by index")
        elif 0 <= at < values.ndim and values.shape[at] > 1:
            theirs = tracer.along(values, at)
            if not blank:
                tracer.unify(atoms, theirs)
            atoms = theirs if atoms is None else atoms
        if atoms is not None and not first <= dim < end:
            blocks.append(Block((dim,), atoms))
    for block in tracer.facts(values).blocks:
        if first <= block.dims[0] + x.ndim + grown - values.ndim < end + grown:
            tracer.pin(block.atoms, "picked out by index")
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


@rule("roll rot90")
def _roll(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x = args[0]
    dims = {d % x.ndim for d in (args[2] if len(args) > 2 else args[1])}
    tracer.settle(x)
    for block in tracer.facts(x).blocks:
        if not dims or block.dims[0] in dims:
            tracer.pin(block.atoms, "changes its order")
    tracer.set(out, [b for b in tracer.facts(x).blocks if dims and b.dims[0] not in dims])


@rule("flip")
def _flip(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    """What is left of a reversed order is the reversed order of what is left."""
    x = args[0]
    dims = {d % x.ndim for d in args[1]}
    tracer.settle(x)
    found = tracer.facts(x).blocks
    tracer.set(out, [Block(b.dims, b.atoms[::-1] if b.dims[0] in dims else b.atoms) for b in found])


@rule("topk")
def _highest(tracer: Tracer, args: Sequence[Any], out: Sequence[Tensor]) -> None:
    """The highest of a router's scores are experts; of others each place may be any."""
    x, picked, dim, largest = args[0], args[1], args[2], args[3]
    tracer.settle(x)
    if x.ndim and dim % x.ndim == x.ndim - 1 and largest and rank(tracer, x, picked, out[1]):
        kept = [block for block in tracer.facts(x).blocks if block.dims[0] != x.ndim - 1]
        for result in out:
            tracer.set(result, kept)
    else:
        _ranked(tracer, args, out)


@rule("sort kthvalue mode")
def _ranked(tracer: Tracer, args: Sequence[Any], out: Sequence[Tensor]) -> None:
    """Values along one dimension, picked or put in order by their size, and their places."""
    x = args[0]
    # (self, k, dim, ...) or (self, dim, ...); `mode` and `sort` have no k.
    numbers = [a for a in args[1:] if type(a) is int]
    dim = numbers[-1] % x.ndim if x.ndim else 0
    tracer.settle(x)
    kept = []
    for block in tracer.facts(x).blocks:
        if block.dims[0] == dim:
            tracer.pin(block.atoms, "is sorted or ranked")
        else:
            kept.append(block)
    if out[0].ndim < x.ndim:
        kept = move(kept, lambda d: d - (d > dim))
    for result in tensors(out):
        tracer.set(result, kept)


@rule("gather take_along_dim")
def _gather(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    """Along one dimension places are picked; along the others the index is as long as what it picks from."""
    x, dim, index = args[0], args[1] % args[0].ndim, args[2]
    tracer.settle(x)
    tracer.settle(index)
    if not picked_experts(tracer, x, index, dim):
        _picked(tracer, x, dim)
    tracer.set(out, _others_of(tracer, [x, index], dim, out))


@rule("scatter_add scatter scatter_reduce index_add index_copy index_reduce")
def _scatter(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    """Along one dimension values are put in places; along the others all tensors are as long as each other."""
    x, dim = args[0], args[1] % args[0].ndim
    operands = [operand for operand in tensors(args) if operand.ndim == x.ndim]
    if tracer.blank_under(x) is not None and not tracer.facts(x).blocks:
        # What has just been made, of one value, is as long as what is put into it.
        operands = operands[1:]
    for operand in operands:
        tracer.settle(operand)
        _picked(tracer, operand, dim)
    # The index of `index_add` has but one dimension, that of the places.
    for other in tensors(args):
        if other.ndim != x.ndim:
            tracer.pin_all(other, "picked out by index")
    tracer.set(out, _others_of(tracer, operands, dim, out))


def _picked(tracer: Tracer, x: Tensor, dim: int) -> None:
    atoms = tracer.along(x, dim)
    if atoms is not None:
        tracer.pin(atoms, "picked out by index")


def _others_of(tracer: Tracer, operands: Sequence[Tensor], dim: int, out: Tensor) -> list[Block]:
    """Atoms of all dimensions but one, along which operands go together where they are equally long."""
    blocks = []
    for other in range(out.ndim):
        found = [tracer.along(x, other) for x in operands]
        if other == dim:
            continue
        if len({x.shape[other] for x in operands}) > 1:
            for atoms in found:
                if atoms is not None:
                    tracer.pin(atoms, "picked out by index")
            continue
        first = next((atoms for atoms in found if atoms is not None), None)
        for atoms in found:
            tracer.unify(first, atoms)
        if first is not None and goes_on(tracer, first, found):
            blocks.append(Block((other,), first))
    return blocks
