"""Which tensors of a forward pass are in memory at the same time, and what their lengths depend on.

A tensor that an operator makes lives until nothing refers to it any more: its storage is gone then. Views and what is
computed in place share a storage, which counts once. Weights are not among them, and what the model is given lives
throughout.
"""

from collections.abc import Iterable, Sequence
from math import prod

from torch import Tensor

from l0prune.discovery.scratch import Scratch, length_of
from l0prune.discovery.traced import Allocation, Block
from l0prune.support import StorageReference


class Lifetimes:
    """Notes storages as they come and go.

    Args:
        weights: Parameters and buffers.
    """

    def __init__(self, weights: Iterable[Tensor]) -> None:
        self.found: list[Allocation] = []
        self._held = {reference.cdata: reference for reference in map(_reference, weights)}
        self._live: dict[int, tuple[StorageReference, int]] = {}
        self._step = 0

    def before(self, operands: Iterable[Tensor]) -> None:
        """An operator begins: what has died is told, and operands that come from outside live throughout."""
        self._step += 1
        for key, (reference, number) in list(self._live.items()):
            if reference.expired():
                del self._live[key]
                self.found[number] = self.found[number]._replace(died=self._step)
        for operand in operands:
            reference = _reference(operand)
            if reference.cdata not in self._held and reference.cdata not in self._live:
                self._held[reference.cdata] = reference
                self.found.append(Allocation("", operand.untyped_storage().nbytes(), (), 0, None))

    def after(
        self, results: Iterable[tuple[Tensor, tuple[Block, ...]]], module: str, scratch: Sequence[Scratch] = ()
    ) -> None:
        """An operator has ended.

        Args:
            results: Its results, and what their dimensions carry.
            module: Path of the module that ran it.
            scratch: What it took for itself: some before its results were there, some together with them.
        """
        if scratch:
            begun, self._step = self._step, self._step + 1
            for factor, extents, until_end in scratch:
                self.found.append(Allocation(module, factor, extents, begun, self._step + until_end))
        for result, blocks in results:
            reference = _reference(result)
            if reference.cdata in self._held:
                continue
            made = _allocation(result, blocks, module, self._step)
            known = self._live.get(reference.cdata)
            if known is None:
                self._live[reference.cdata] = reference, len(self.found)
                self.found.append(made)
            elif made.extents and not self.found[known[1]].extents:
                # What was made blank has been filled.
                self.found[known[1]] = made._replace(born=self.found[known[1]].born)


def _reference(tensor: Tensor) -> StorageReference:
    return StorageReference(tensor.untyped_storage())


def _allocation(tensor: Tensor, blocks: tuple[Block, ...], module: str, step: int) -> Allocation:
    size = tensor.untyped_storage().nbytes()
    fits = all(block.atoms.size == prod(tensor.shape[dim] for dim in block.dims) for block in blocks)
    if not fits or size != tensor.numel() * tensor.element_size():
        # A part of a larger storage says nothing of its length.
        return Allocation(module, size, (), step, None)
    return Allocation(module, *length_of(tensor, blocks), step, None)
