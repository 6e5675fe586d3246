"""Operators over windows, boxes and frequencies: some places are mixed, channels stay."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from torch import Tensor

from l0prune.discovery.rules.products import consume, extent
from l0prune.discovery.rules.registry import rule
from l0prune.discovery.traced import Block
from l0prune.discovery.tracer import Tracer


def _without(tracer: Tracer, x: Tensor, dims: set[int], reason: str) -> list[Block]:
    """What a tensor carries, but on some dimensions, which are pinned."""
    tracer.settle(x)
    blocks = []
    for block in tracer.facts(x).blocks:
        if block.dims[0] in dims:
            tracer.pin(block.atoms, reason)
        else:
            blocks.append(block)
    return blocks


@rule("_fft_r2c _fft_c2c _fft_c2r")
def _fft(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x, dims = args[:2]
    tracer.set(out, _without(tracer, x, {d % x.ndim for d in dims}, "is transformed to frequencies"))


@rule("im2col")
def _im2col(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    """(n, c, h, w) -> (n, c * places of the kernel, windows)."""
    x, first = args[0], args[0].ndim - 3
    blocks = _without(tracer, x, {first + 1, first + 2}, "is taken apart into windows")
    places = out.shape[first] // x.shape[first]
    tracer.set(out, [Block(d, np.repeat(a, places) if d == (first,) else a) for d, a in blocks])


@rule("col2im")
def _col2im(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    """The inverse: the places of one channel go together."""
    x, first = args[0], args[0].ndim - 2
    blocks = []
    for dims, atoms in _without(tracer, x, {first + 1}, "is put together from windows"):
        if dims == (first,):
            table = atoms.reshape(out.shape[first], -1)
            tracer.unify(table, np.broadcast_to(table[:, :1], table.shape))
            atoms = table[:, 0]
        blocks.append(Block(dims, atoms))
    tracer.set(out, blocks)


@rule("unfold")
def _unfold(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x, dim = args[:2]
    tracer.set(out, _without(tracer, x, {dim % x.ndim}, "is taken apart into windows"))


@rule("torchvision::roi_align torchvision::roi_pool")
def _pooled_boxes(tracer: Tracer, args: Sequence[Any], out: Any) -> None:
    """(n, c, h, w) and boxes (k, 5) -> (k, c, ...)."""
    x, boxes = args[:2]
    tracer.pin_all(boxes, "are the corners of boxes")
    blocks = _without(tracer, x, {0, 2, 3}, "is pooled in boxes")
    for result in out if isinstance(out, tuple) else (out,):
        tracer.set(result, blocks)


@rule("torchvision::deform_conv2d")
def _deformable_convolution(tracer: Tracer, args: Sequence[Any], out: Tensor) -> None:
    x, weight, offsets, mask, bias = args[:5]
    groups, offset_groups = args[11], args[12]
    for operand in (offsets, mask):
        tracer.pin_all(operand, "says where a convolution looks")
    if groups > 1 or offset_groups > 1:
        for operand in (x, weight, bias):
            tracer.pin_all(operand, "belongs to a deformable convolution in groups")
        return
    tracer.settle(x)
    consume(tracer, tracer.along(x, 1), tracer.along(weight, 1), weight, x)
    made = tracer.along(weight, 0)
    tracer.unify(made, tracer.along(bias, 0))
    tracer.set(out, [] if made is None else [Block((1,), made)])
    places = prod(out.shape[2:]) * prod(weight.shape[2:]) * x.shape[0]
    tracer.cost(places, extent(tracer, weight, 0), extent(tracer, weight, 1))
