"""Operators that work value by value: what stands on one dimension of several operands is unified."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from l0prune.discovery.rules.registry import move, rule, tensors
from l0prune.discovery.traced import Atoms, Block
from l0prune.discovery.tracer import Tracer


@rule(
    "masked_fill where native_dropout bernoulli clone fill zero dropout lerp addcmul addcdiv hardswish "
    "hardsigmoid hardtanh relu6 prelu _prelu_kernel mish silu elu celu selu leaky_relu softplus rrelu_with_noise "
    "threshold gelu log_sigmoid_forward softshrink hardshrink normal uniform exponential random"
)
def _elementwise(tracer: Tracer, args: Sequence[Any], out: Any) -> None:
    pointwise(tracer, tensors(args), out)


@rule("full zeros ones empty empty_strided new_full new_zeros new_ones new_empty full_like zeros_like ones_like")
def _blank(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    shaped_like(tracer, tensors(args[:1]), out)
    if not tracer.facts(out).blocks:
        tracer.make_blank(out)


@rule("eye")
def _eye(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    """Rows and columns of a unit matrix are the same units, those of what it is multiplied with."""
    if out.ndim == 2 and out.shape[0] == out.shape[1] > 1:
        atoms = tracer.new_atoms(out.shape[0])
        tracer.set(out, [Block((dim,), atoms) for dim in range(2)], constant=True)


@rule("copy")
def _copy(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    """Writing into a part of a blank tensor: the rest of it is as long as what is written."""
    into, x = args[:2]
    base = tracer.blank_under(into)
    if base is None or tracer.facts(into).blocks:
        pointwise(tracer, [into, x], out)
        return
    tracer.settle(x)
    blocks, below = [], list(tracer.facts(base).blocks)
    for block in move(tracer.facts(x).blocks, lambda d: d + into.ndim - x.ndim):
        dim = block.dims[0]
        same = [d for d in range(base.ndim) if (base.stride(d), base.shape[d]) == (into.stride(dim), into.shape[dim])]
        if len(same) != 1 or any(b.dims == (same[0],) for b in below):
            tracer.pin(block.atoms, "is written to a part of another tensor")
        else:
            blocks.append(block)
            below.append(Block((same[0],), block.atoms))
    tracer.set(base, below)
    tracer.set(out, blocks)


def pointwise(tracer: Tracer, operands: Sequence[Tensor], out: Any) -> None:
    """Unify the operands, dimension by dimension from the last."""
    for result in tensors([out]):
        tracer.set(result, unified(tracer, operands, result.ndim))


def is_made(tracer: Tracer, x: Tensor) -> bool:
    """Whether a tensor was made on the way, dropout's noise say, and has met nothing yet.

    It is as long as what it meets first, and as that alone from then on.
    """
    return not tracer.facts(x).blocks and tracer.blank_under(x) is not None


def unified(tracer: Tracer, operands: Sequence[Tensor], ndim: int) -> list[Block]:
    """Atoms of a broadcast combination; what stands on one dimension of several operands is unified."""
    operands = [operand for operand in operands if operand.ndim and operand.numel() > 1]
    made = [operand for operand in operands if is_made(tracer, operand)]
    operands = [o for o in operands if not any(o is one for one in made)] or operands
    if len(operands) > 1 and all(tracer.facts(operand).constant for operand in operands):
        # Of weights that are multiplied one is gated: a scale rather than what may be normalised by its own length.
        operands = sorted(operands, key=Tensor.numel)
    blocks = _unified_joint(tracer, operands, ndim)
    taken = {d for block in blocks for d in block.dims}
    for dim in range(ndim):
        if dim in taken:
            continue
        present = [o for o in operands if dim >= ndim - o.ndim and o.shape[dim - ndim] > 1]
        found = [tracer.along(operand, dim - ndim) for operand in present]
        first = next((atoms for atoms in found if atoms is not None), None)
        if first is None:
            blocks += [] if present else _length_of_later(tracer, made, dim - ndim, dim)
            continue
        for atoms in found:
            tracer.unify(first, atoms)
        if goes_on(tracer, first, found):
            blocks.append(Block((dim,), first))
    _lend(tracer, made, blocks, ndim)
    return blocks


def _unified_joint(tracer: Tracer, operands: Sequence[Tensor], ndim: int) -> list[Block]:
    """The same for blocks of several dimensions, where all operands have them in one form; else they are settled."""
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
    return blocks


def _lend(tracer: Tracer, made: Sequence[Tensor], blocks: Sequence[Block], ndim: int) -> None:
    """Let tensors made on the way carry from now on what they have met."""
    for one in made:
        before = ndim - one.ndim
        mine = [b for b in blocks if all(d >= before and one.shape[d - before] > 1 for d in b.dims)]
        tracer.set(one, [Block(tuple(d - before for d in block.dims), block.atoms) for block in mine])


def _length_of_later(tracer: Tracer, made: Sequence[Tensor], place: int, dim: int) -> list[Block]:
    """A dimension of tensors made on the way alone: what it meets later decides how long it is."""
    lengths = [o.shape[place] for o in made if -place <= o.ndim and o.shape[place] > 1]
    return [Block((dim,), tracer.new_atoms(lengths[0]))] if lengths else []


def goes_on(tracer: Tracer, first: Atoms, found: Sequence[Atoms | None]) -> bool:
    """Whether atoms that may have met a fixed dimension, and been pinned, are worth following: a layer's own are."""
    return all(atoms is not None for atoms in found) or not tracer.is_new(first)


def _aligned(tracer: Tracer, operand: Tensor, ndim: int) -> list[Block]:
    return move(tracer.facts(operand).blocks, lambda d: d + ndim - operand.ndim)


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


def shaped_like(tracer: Tracer, operands: Sequence[Tensor], out: Any) -> None:
    """A new tensor in the shape of the first operand."""
    if isinstance(out, Tensor) and operands and operands[0].shape == out.shape:
        tracer.set(out, tracer.facts(operands[0]).blocks)


@rule("_to_copy contiguous detach alias lift_fresh view_as_real_copy _conj requires_grad to")
def _identity(tracer: Tracer, args: Sequence[Any], out: Any) -> None:
    facts = tracer.facts(args[0])
    if isinstance(out, Tensor):
        tracer.set(out, facts.blocks, constant=facts.constant)


@rule("_local_scalar_dense equal is_nonzero item sym_size sym_numel is_same_size _has_compatible_shallow_copy_type")
def _value(tracer: Tracer, args: Sequence[Any], out: Any) -> None:
    """Gives a number: nothing to carry."""


@rule("glu")
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
