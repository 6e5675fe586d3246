"""Matrix products, convolutions and attention: what contracts features with a weight reads them."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from torch import Tensor

from l0prune.discovery.rules.elementwise import is_made, unified
from l0prune.discovery.rules.registry import across, rule, tensors
from l0prune.discovery.traced import Atoms, Block
from l0prune.discovery.tracer import Tracer
from l0prune.layers import ALIGNED, computes_one_by_one


@rule("mm bmm mv matmul")
def _product(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    tracer.set(out, _contracted(tracer, args[0], args[1], out))


@rule("addmm addmv baddbmm _addmm_activation addbmm")
def _add_product(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    bias, one, other = args[:3]
    tracer.set(out, _contracted(tracer, one, other, out))
    tracer.set(out, unified(tracer, [out, bias], out.ndim))


@rule("linear mkldnn_linear _mkldnn_linear")
def _linear(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x, weight, bias = args[0], args[1], args[2]
    features = tracer.along(x, -1)
    consume(tracer, features, tracer.along(weight, 1), weight, x)
    blocks = [b for b in tracer.facts(x).blocks if b.dims[0] != x.ndim - 1]
    outs = tracer.along(weight, 0)
    if outs is not None:
        blocks.append(Block((out.ndim - 1,), outs))
    tracer.set(out, blocks)
    tracer.cost(prod(x.shape[:-1]), extent(tracer, weight, 0), extent(tracer, weight, 1))
    if bias is not None:
        tracer.set(out, unified(tracer, [out, bias], out.ndim))


@rule("_grouped_mm transformers::grouped_mm_fallback")
def _grouped_product(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    """(n, k) x (e, k, m): each row times the matrix of its expert. Experts read and make the same units."""
    x, weight, bias = args[0], args[1], args[3] if len(args) > 3 else None
    if x.ndim != 2 or weight.ndim != 3 or bias is not None:
        for operand in tensors(args):
            tracer.pin_all(operand, "is read by experts in a form that has no rule")
        return
    tracer.settle(weight)
    if not computes_one_by_one(tracer.modules.get(tracer.here)):
        for dim in (1, 2):
            _in_rows(tracer, tracer.along(weight, dim))
    consume(tracer, tracer.along(x, 1), tracer.along(weight, 1), weight, x)
    found = ((0, tracer.along(x, 0)), (1, tracer.along(weight, 2)))
    tracer.set(out, [Block((dim,), atoms) for dim, atoms in found if atoms is not None])
    tracer.cost(x.shape[0], extent(tracer, weight, 1), extent(tracer, weight, 2))


def _in_rows(tracer: Tracer, atoms: Atoms | None) -> None:
    """Neighbours go together, as many as the kernel counts by."""
    if atoms is not None and len(atoms) % ALIGNED:
        tracer.pin(atoms, f"is no multiple of {ALIGNED}, which a grouped product counts by")
    elif atoms is not None:
        table = atoms.reshape(-1, ALIGNED)
        tracer.unify(table, np.broadcast_to(table[:, :1], table.shape))


def _contracted(tracer: Tracer, one: Tensor, other: Tensor, out: Tensor) -> list[Block]:
    """(b, n, k) x (b, k, m), without b, and without m for a vector."""
    tracer.settle(one)
    tracer.settle(other)
    inner = other.ndim - 2 if other.ndim > 1 else 0
    left, right = tracer.along(one, -1), tracer.along(other, inner)
    if _is_weight(tracer, other, one):
        consume(tracer, left, right, other, one)
    else:
        consume(tracer, right, left, one, other)
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
    if other.ndim == 1 and tracer.facts(one).constant and tracer.facts(other).constant:
        # A number made of a weight, its spectral norm for example, costs next to nothing.
        return blocks
    last = [extent(tracer, other, other.ndim - 1)] if other.ndim > 1 else []
    tracer.cost(1, *(extent(tracer, one, dim) for dim in range(one.ndim)), *last)
    return blocks


@rule("_trilinear")
def _trilinear(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    """(n, i), (o, i, j) and (n, j) -> (n, o), as nn.Bilinear calls it."""
    one, weight, other, *expanded, summed = args[:7]
    if [*map(list, expanded), list(summed)] != [[1, 3], [0], [1, 2], [2, 3]]:
        for operand in (one, weight, other):
            tracer.pin_all(operand, "is part of a product of three in a form that has no rule")
        return
    for x, dim in ((one, 1), (other, 2)):
        tracer.settle(x)
        consume(tracer, tracer.along(x, 1), tracer.along(weight, dim), weight, x)
    made = tracer.along(weight, 0)
    tracer.set(out, [] if made is None else [Block((1,), made)])
    tracer.cost(one.shape[0], *(extent(tracer, weight, dim) for dim in range(3)))


@rule("_cdist_forward _euclidean_dist")
def _distances(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    """(..., n, k), (..., m, k) -> (..., n, m): what is far in one feature is far."""
    rows = []
    for x, dim in ((args[0], out.ndim - 2), (args[1], out.ndim - 1)):
        tracer.settle(x)
        for block in tracer.facts(x).blocks:
            if block.dims[0] == x.ndim - 2:
                rows.append(Block((dim,), block.atoms))
            else:
                tracer.pin(block.atoms, "is a feature that distances are measured in")
    tracer.set(out, rows)


def _is_weight(tracer: Tracer, other: Tensor, one: Tensor) -> bool:
    """Whether the second factor is what is gated: of two weights a matrix, not a vector that a module keeps of it."""
    if tracer.facts(one).constant and tracer.facts(other).constant:
        return other.ndim > 1
    return tracer.facts(other).constant or not tracer.facts(one).constant


@rule("dot vdot")
def _dot(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    one, other = args[:2]
    if not tracer.facts(other).constant:
        one, other = other, one
    consume(tracer, tracer.along(one, 0), tracer.along(other, 0), other, one)


def consume(tracer: Tracer, features: Atoms | None, reads: Atoms | None, weight: Tensor, x: Tensor) -> None:
    """Features of `x` are contracted with a dimension of `weight`."""
    tracer.unify(features, reads, "reads fixed features" if features is None else "is multiplied with fixed features")
    if features is None or reads is None:
        return
    if tracer.facts(weight).constant:
        tracer.consume(reads)
    else:
        tracer.pin(features, "two activations are multiplied over it")


def extent(tracer: Tracer, x: Tensor, dim: int) -> Atoms | int:
    """The length of a dimension for `Tracer.cost`: its atoms, or a number where it is fixed."""
    atoms = tracer.along(x, dim)
    return x.shape[dim] if atoms is None else atoms


@rule("convolution _convolution convolution_overrideable mkldnn_convolution cudnn_convolution")
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
        consume(tracer, tracer.along(x, 1), reads, weight, x)
    elif x.shape[1] == groups:
        made = _depthwise(tracer, tracer.along(x, 1), rows, columns, out.shape[1] // groups, transposed)
    else:
        made = _grouped_convolution(tracer, tracer.along(x, 1), rows, columns, groups, transposed)
    blocks = [Block((d,), a) for d, a in ((0, tracer.along(x, 0)), (1, made)) if a is not None]
    tracer.set(out, blocks)
    positions = prod((x if transposed else out).shape[2:]) * prod(weight.shape[2:]) * x.shape[0]
    tracer.cost(positions, extent(tracer, weight, 0), extent(tracer, weight, 1))
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
    reads = across(tracer, rows, groups) if transposed else columns
    if channels is None or reads is None:
        tracer.unify(channels, reads, "reads fixed features")
    else:
        tracer.unify(channels.reshape(groups, -1), np.broadcast_to(reads, (groups, len(reads))))
        tracer.consume(rows if transposed else columns)
    if transposed:
        return None if columns is None else np.tile(columns, groups)
    across(tracer, rows, groups)
    return rows


@rule(
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
        if x.shape[-3] == 1:
            # One head of keys and values, which all queries share.
            continue
        theirs = tracer.along(x, -3)
        share = query.shape[-3] // x.shape[-3]
        tracer.unify(heads, theirs if theirs is None else np.repeat(theirs, share))
    for mask in tensors(args[3:]):
        if mask.ndim >= 3 and mask.shape[-3] > 1:
            if heads is not None and is_made(tracer, mask):
                tracer.set(mask, [Block((mask.ndim - 3,), heads)])
            else:
                tracer.unify(heads, tracer.along(mask, -3))
    result = out if isinstance(out, Tensor) else out[0]
    features = tracer.along(value, -1)
    found = ((0, tracer.along(query, 0)), (result.ndim - 3, heads), (result.ndim - 1, features))
    tracer.set(result, [Block((d,), atoms) for d, atoms in found if atoms is not None])
    batch, length, source = prod(query.shape[:-3]), query.shape[-2], key.shape[-2]
    tracer.cost(batch * length * source, extent(tracer, query, -3), query.shape[-1])
    tracer.cost(batch * length * source, extent(tracer, query, -3), extent(tracer, value, -1))
