"""What operators take for themselves while they run, as far as it is known: convolutions on processors.

oneDNN computes with blocks of channels. Tensors that come in PyTorch's own order are copied: first the input and the
weight, once the input has 16 channels or more, and the result is copied back. Other convolutions unfold their input,
or what they scatter, to columns. Seen in PyTorch 2.14 on a processor with AVX-512, by the profiler's record of memory.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

from torch import Tensor

from l0prune.discovery.traced import Atoms, Block
from l0prune.support import convolution_backend

_BLOCK = 16
"""Channels; an input with fewer is read as it is."""


class Scratch(NamedTuple):
    """Memory of an operator alone: `factor` bytes times the lengths of `extents`."""

    factor: int
    extents: tuple[Atoms, ...]
    until_end: bool
    """Whether it is there together with the result."""


def scratch(
    func: Any, args: Sequence[Any], result: Any, carried: Callable[[Tensor], tuple[Block, ...]]
) -> list[Scratch]:
    """What an operator took beside its result.

    Args:
        func: The overload.
        args: Its arguments by position.
        result: What it returned.
        carried: What a tensor's dimensions carry.
    """
    if func.__name__ != "convolution.default" or not isinstance(result, Tensor) or result.device.type != "cpu":
        return []
    x, weight, transposed, groups = args[0], args[1], args[6], args[8]
    backend = convolution_backend(args)

    def like(tensor: Tensor, *, until_end: bool = False) -> Scratch:
        return Scratch(*length_of(tensor, carried(tensor)), until_end)

    if backend == "Mkldnn" and x.is_contiguous():
        copied = [like(x)] if groups > 1 or x.shape[1] >= _BLOCK else []
        return [*copied, like(weight), like(result, until_end=True)]
    if backend in ("Slow2d", "SlowTranspose2d") and prod(weight.shape[2:]) > 1:
        # Columns of what is read by a convolution, of one image after the other in what a transposed one writes.
        wide, other = (result, x) if transposed else (x, result)
        factor, extents = length_of(wide, [block for block in carried(wide) if block.dims == (1,)], dims=(1,))
        images = 1 if transposed else x.shape[0]
        return [Scratch(factor * images * prod(weight.shape[2:]) * prod(other.shape[2:]), extents, True)]
    return []


def length_of(
    tensor: Tensor, blocks: Sequence[Block], dims: Sequence[int] | None = None
) -> tuple[int, tuple[Atoms, ...]]:
    """Bytes of a tensor as a number, and lengths to multiply it with.

    Args:
        tensor: The tensor.
        blocks: What its dimensions carry.
        dims: Which of its dimensions count; all by default.
    """
    joint = {dim for block in blocks for dim in block.dims}
    counted = range(tensor.ndim) if dims is None else dims
    fixed = prod(tensor.shape[dim] for dim in counted if dim not in joint)
    return tensor.element_size() * fixed, tuple(block.atoms.ravel() for block in blocks)
