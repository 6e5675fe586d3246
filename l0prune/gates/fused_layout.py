"""How gated tensors are laid out to be scaled together, and the scaling itself.

Small tensors of one shape are stacked, so that a deep narrow network takes a few vector operations instead of several
for each tensor. All scales come from one flat vector, which one look-up in the gate values makes.

Legend: N units of all groups; S scales of all tensors; T tensors of a block, each seen as (A, D, E) with one scale for
each of the D.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from l0prune.groups import Place

_STACKED = 2**14
"""Elements up to which a tensor is stacked with others: copying it is then cheaper than calls of its own."""
_BLOCK = 2**17
"""Elements of a stack at most: it stays in the cache, and its gradients wait for no more than that."""
_ROWS = 2**18
"""Elements that a large product is made of at a time, for the same reason."""
_REPEATED = 64
"""Elements behind the gated dimension up to which scales are repeated: long rows are multiplied faster than runs."""


@dataclass(frozen=True, eq=False)
class Standing:
    """What acts on one tensor, or on the channels of one norm."""

    shape: tuple[int, ...]
    places: tuple[tuple[int, Place], ...]
    """Numbers of groups, and where their units stand."""
    alive_with: tuple[int, ...] = ()
    """Numbers of groups of which any unit must be open."""
    kind: Any = None
    """Tensors of different kinds (dtype, device) are not stacked."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "Standing":
        """Itself: it never changes."""
        return self

    def form(self) -> tuple[int, int, int] | None:
        """(A, D, E), the gated dimension in the middle; None where several dimensions are gated."""
        dims = {place.dim for _, place in self.places if place.dim is not None}
        if len(dims) > 1 or not self.shape:
            return None
        dim = dims.pop() if dims else len(self.shape) - 1
        return prod(self.shape[:dim]), self.shape[dim], prod(self.shape[dim + 1 :])


@dataclass(frozen=True, eq=False)
class Block:
    """Tensors that are scaled together."""

    numbers: tuple[int, ...]
    shape: tuple[int, ...]
    """Of each tensor."""
    form: tuple[int, int, int]
    """(A, D, E), where D may count the elements behind the gated dimension as well."""
    repeats: int
    """Elements behind the gated dimension that D counts."""

    @property
    def scales(self) -> int:
        """Scales of all its tensors."""
        return len(self.numbers) * self.form[1]


class Layout:
    """Where the scale of each row of each tensor is found.

    Gate values are extended by one entry for each group that keeps a tensor alive, 1 while any of its units is open,
    and by a constant 1, for rows on which no unit stands.

    Args:
        units: Units of each group.
        tensors: What acts on each tensor.
    """

    def __init__(self, units: Sequence[int], tensors: Sequence[Standing]) -> None:
        starts = np.cumsum([0, *units])
        self._alive = sorted({g for standing in tensors for g in standing.alive_with})
        # The units of those groups, and whose they are.
        self._alive_units = np.concatenate([np.empty(0, int), *(np.arange(*starts[[g, g + 1]]) for g in self._alive)])
        self._alive_owners = np.repeat(np.arange(len(self._alive)), [units[g] for g in self._alive])
        self._starts, self._one = starts, starts[-1] + len(self._alive)
        self.blocks = _blocks(tensors)
        self.block_of = {number: b for b, block in enumerate(self.blocks) for number in block.numbers}
        rows = [
            np.repeat(self._factors(tensors[number]), block.repeats, axis=1)
            for block in self.blocks
            for number in block.numbers
        ]
        depth = max((len(row) for row in rows), default=1)
        padded = [np.pad(row, ((0, depth - len(row)), (0, 0)), constant_values=self._one) for row in rows]
        self._index = np.concatenate([np.empty((depth, 0), int), *padded], axis=1)
        self._on_device: dict[torch.device, tuple[Tensor, ...]] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> "Layout":
        """Itself: it never changes."""
        return self

    def scales(self, z: Tensor) -> Tensor:
        """(S,) what each row is multiplied with; differentiable. z: (N,) gate values."""
        first, *others, alive_units, alive_owners = self._tensors(z.device)
        parts = [z]
        if self._alive:
            count = z.new_zeros(len(self._alive))
            opened = (z.detach().index_select(0, alive_units) > 0).to(z.dtype)
            parts.append((count.index_add_(0, alive_owners, opened) > 0).to(z.dtype))
        extended = torch.cat([*parts, z.new_ones(1)])
        scales = extended.index_select(0, first)
        for index in others:
            scales = scales * extended.index_select(0, index)
        return scales

    def by_block(self, scales: Tensor) -> Iterator[tuple[tuple[int, ...], Tensor]]:
        """The numbers of each block's tensors, and their scales (T, D). scales: (S,)."""
        for block, mine in zip(self.blocks, scales.split([block.scales for block in self.blocks]), strict=True):
            yield block.numbers, mine.view(-1, block.form[1])

    def _factors(self, standing: Standing) -> np.ndarray:
        """(P, D) entries of the extended gate values whose product scales each row."""
        form = standing.form()
        assert form is not None
        standing_on = np.full(form[1], self._one)
        whole = [self._starts[-1] + self._alive.index(g) for g in standing.alive_with]
        for g, place in standing.places:
            if place.dim is None:
                whole.append(self._starts[g])
            else:
                standing_on[place.index] = self._starts[g] + np.arange(len(place.index))[:, None]
        return np.stack([standing_on, *(np.full(form[1], entry) for entry in whole)])

    def _tensors(self, device: torch.device) -> tuple[Tensor, ...]:
        if device not in self._on_device:
            # Not of `torch.inference_mode`, if that is on now: later passes may want gradients.
            with torch.inference_mode(False):
                arrays = (*self._index, self._alive_units, self._alive_owners)
                self._on_device[device] = tuple(torch.from_numpy(array.copy()).to(device) for array in arrays)
        return self._on_device[device]


def _blocks(tensors: Sequence[Standing]) -> list[Block]:
    """All tensors with one gated dimension, small ones of one shape together."""
    blocks: list[Block] = []
    stacks: dict[Any, list[int]] = {}
    for number, standing in enumerate(tensors):
        form = standing.form()
        if form is None:
            continue
        size = prod(standing.shape)
        key = (standing.shape, form, standing.kind) if 0 < size <= _STACKED else number
        stack = stacks.setdefault(key, [])
        stack.append(number)
        if len(stack) * size > _BLOCK - size:
            blocks.append(_block(standing.shape, form, stacks.pop(key)))
    for stack in stacks.values():
        standing = tensors[stack[0]]
        form = standing.form()
        assert form is not None
        blocks.append(_block(standing.shape, form, stack))
    return blocks


def _block(shape: tuple[int, ...], form: tuple[int, int, int], numbers: Sequence[int]) -> Block:
    before, rows, behind = form
    repeats = behind if before > 1 and behind <= _REPEATED else 1
    return Block(tuple(numbers), shape, (before, rows * repeats, behind // repeats if behind else 0), repeats)


class _Scaled(torch.autograd.Function):
    """Tensors times their scales."""

    @staticmethod
    def forward(ctx, block, scales, *tensors):  # type: ignore[override]
        ctx.block = block
        ctx.set_materialize_grads(False)
        # Weights are needed for the gradient of the scales alone.
        ctx.save_for_backward(scales, *(tensors if ctx.needs_input_grad[1] else ()))
        return _times(block, _stack(block, tensors), scales)

    @staticmethod
    def backward(ctx, *grads):  # type: ignore[override]
        block, (scales, *tensors) = ctx.block, ctx.saved_tensors
        _, of_scales, *of_tensors = ctx.needs_input_grad
        present = [t for t, grad in enumerate(grads) if grad is not None]
        grad_scales: Tensor | None = None
        grad_tensors: list[Tensor | None] = [None] * len(grads)
        if not present:
            return None, None, *grad_tensors
        complete = len(present) == len(grads)
        stack = _stack(block, [grads[t] for t in present])
        if of_scales:
            products = _row_products(_stack(block, [tensors[t] for t in present]), stack)
            if not complete:
                index = torch.tensor(present, device=scales.device)
                products = scales.new_zeros(len(grads), block.form[1]).index_copy(0, index, products)
            grad_scales = products.reshape(-1)
        if any(of_tensors):
            mine = scales if complete else scales.view(-1, block.form[1])[present]
            for t, product in zip(present, _times(block, stack, mine), strict=True):
                grad_tensors[t] = product if of_tensors[t] else None
        return None, grad_scales, *grad_tensors


def scaled(block: Block, tensors: Sequence[Tensor], scales: Tensor) -> tuple[Tensor, ...]:
    """The block's tensors times its scales; differentiable, also twice.

    Args:
        block: Says which rows a scale is for.
        tensors: T contiguous tensors of the block's shape.
        scales: (T * D,) in the tensors' dtype.

    Returns:
        T tensors.
    """
    if torch.is_grad_enabled():
        return _Scaled.apply(block, scales, *tensors)  # type: ignore[return-value]
    return _times(block, _stack(block, tensors), scales)


def _times(block: Block, stack: Tensor, scales: Tensor) -> tuple[Tensor, ...]:
    """Each of a stack (T, A, D, E) times its scales (T * D,), in the tensors' own shape; several are used up."""
    scales = scales.view(-1, 1, block.form[1], 1)
    # Of several tensors it is a copy; less memory means fewer weights that leave the cache.
    product = stack.mul_(scales) if len(stack) > 1 and not torch.is_grad_enabled() else stack * scales
    return product.view(-1, *block.shape).unbind(0)


def _stack(block: Block, tensors: Sequence[Tensor]) -> Tensor:
    """(T, A, D, E)."""
    stack = torch.stack(list(tensors)) if len(tensors) > 1 else tensors[0]
    return stack.reshape(-1, *block.form)


def _row_products(one: Tensor, other: Tensor) -> Tensor:
    """Sums of products over all but the tensors and the scaled rows; the first stack of several is used up.

    one, other: (T, A, D, E) -> (T, D).
    """
    count, before, rows, behind = one.shape
    if torch.is_grad_enabled():
        return (one * other).sum((1, 3))
    if count > 1:
        # A copy of several tensors, that nobody else needs.
        return one.mul_(other).sum((1, 3)) if behind > 1 else one.mul_(other).squeeze(3).sum(1)
    step = max(1, _ROWS // max(rows, 1))
    if behind > 1 or before <= 2 * step or one.is_cuda:
        return (one * other).sum((1, 3)) if behind > 1 else (one * other).squeeze(3).sum(1)
    # A product as large as the tensor would leave the cache before it is summed up.
    a, b = one.view(before, rows), other.view(before, rows)
    total = a[:step] * b[:step]
    for start in range(step, before, step):
        part = a[start : start + step]
        total[: len(part)].addcmul_(part, b[start : start + step])
    return total.sum(0, keepdim=True)
