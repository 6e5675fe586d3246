"""The gated weights of one pass of a model, computed for many tensors at once and handed out one by one.

Legend: N units of all groups; C channels of a norm.
"""

import copy
import functools
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from l0prune.gates.fused_layout import Block, Layout, Standing, scaled
from l0prune.gates.gates import Gates
from l0prune.layers import OpenChannels
from l0prune.support import (
    backward_pass,
    base_of,
    is_sharded,
    operators_are_plain,
    own_parameters,
    saving_hooks,
    version_of,
)


class FusedGating:
    """Gated tensors and the open channels of norms, computed once for each pass of a model.

    A pass is one call of the model. Between two of them weights may change in ways that leave no trace on them, so
    nothing outlives a pass. Outside of one, and where something is not as it was when the pass began (gradients
    switched off, a checkpoint, a function transform), `weight` and `opened` give None: the caller then applies the
    gates to its own tensor alone.

    Args:
        gates: The gates of all groups.
        tensors: What acts on each gated tensor.
        lists: The dotted name of the `ParametrizationList` that holds each.
        norms: What acts on the channels of each norm.
    """

    def __init__(
        self, gates: Gates, tensors: Sequence[Standing], lists: Sequence[str], norms: Sequence[Standing] = ()
    ) -> None:
        units = [group.units for group in gates.groups]
        self._gates, self._names = gates, tuple(lists)
        self._layout, self._norm_layout = Layout(units, tensors), Layout(units, norms)
        self._lists: list[weakref.ref[nn.Module] | None] | None = None
        self._pass: _Pass | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "FusedGating":
        """The same for copied gates, outside of a pass."""
        new = self.__class__.__new__(self.__class__)
        memo[id(self)] = new
        new.__dict__.update(self.__dict__, _lists=None, _pass=None)
        new._gates = copy.deepcopy(self._gates, memo)
        return new

    def __getstate__(self) -> dict[str, Any]:
        """Outside of a pass."""
        return {**self.__dict__, "_lists": None, "_pass": None}

    def attach(self, model: nn.Module) -> list[RemovableHandle]:
        """Let each call of the model be a pass; returns handles that end this."""
        _keep_freed_memory()
        return [model.register_forward_pre_hook(self._open), model.register_forward_hook(self._close, always_call=True)]

    def weight(self, number: int, tensor: Tensor) -> Tensor | None:
        """The gated tensor of that number in the present pass, or None.

        Args:
            number: Of the tensor.
            tensor: The tensor without gates, as it is now.
        """
        if _is_compiling() or (now := self._pass) is None or not now.goes_on(self._gates):
            return None
        made = now.weights.get(number) or self._make(now, number)
        # A tensor that has been replaced or written to since then is another one.
        if made is None or made[0] is not tensor or made[1] != version_of(tensor):
            return None
        return made[2]

    def opened(self, number: int) -> OpenChannels | None:
        """The open channels of the norm of that number, those of open units and of none; or None."""
        if _is_compiling() or (now := self._pass) is None or not now.goes_on(self._gates):
            return None
        if now.opened is None:
            if not operators_are_plain():
                return None
            z = now.z.detach()
            now.opened = {}
            for numbers, opened in self._norm_layout.by_block(self._norm_layout.scales((z > 0).to(z.dtype))):
                now.opened.update(zip(numbers, OpenChannels.several(opened), strict=True))
        return now.opened[number]

    def _open(self, model: nn.Module, args: object) -> None:
        values = self._gates.begin_pass(model)
        if not _is_compiling():
            known = self._gates.followed() is model and operators_are_plain()
            self._pass = _Pass(values) if known else None

    def _close(self, *_: object) -> None:
        if not _is_compiling():
            self._pass = None

    def _make(self, now: "_Pass", number: int) -> "_Made | None":
        """Compute the tensors of a block and keep them for the pass."""
        b = self._layout.block_of.get(number)
        if b is None or not operators_are_plain():
            return None
        block = self._layout.blocks[b]
        tensors = [self._tensor(n) for n in block.numbers]
        if not _alike(tensors, block):
            return None
        kind = tensors[0].device, tensors[0].dtype
        if kind not in now.scales:
            if now.flat is None:
                now.flat = self._layout.scales(now.z)
            now.scales[kind] = now.flat.to(*kind).split([block.scales for block in self._layout.blocks])
        results = scaled(block, tensors, now.scales[kind][b])
        for n, tensor, result in zip(block.numbers, tensors, results, strict=True):
            now.weights[n] = tensor, version_of(tensor), result
        return now.weights[number]

    def _tensor(self, number: int) -> Any:
        if self._lists is None:
            model = self._gates.followed()
            modules = {} if model is None else dict(model.named_modules(remove_duplicate=False))
            self._lists = [weakref.ref(modules[name]) if name in modules else None for name in self._names]
        reference = self._lists[number]
        found = reference and reference()
        return found and own_parameters(found).get("original")


# Looked up once.
_is_compiling, _thread, _gradients = torch.compiler.is_compiling, threading.get_ident, torch.is_grad_enabled

_Made = tuple[Tensor, int, Tensor]
"""A tensor, its version when it was gated, and what it is with gates."""


class _Pass:
    """What has been computed in one call of the model, and what must be as it was for that to hold.

    A checkpoint, for example, must save as many tensors when it computes a part again.
    """

    def __init__(self, values: tuple[Tensor, ...] | None) -> None:
        self.thread, self.gradients, self.hooks = _thread(), _gradients(), saving_hooks(False)
        self.values = values
        self._forget()

    def goes_on(self, gates: Gates) -> bool:
        """Whether what has been computed, or will be, is right where it is asked for.

        This is asked for each tensor of each pass: it takes longer than all else that a tensor costs.
        """
        if (
            _thread() != self.thread
            or _gradients() is not self.gradients
            or saving_hooks(False) != self.hooks
            # Without hooks that is a checkpoint whose gates must come from a graph of its own.
            or (self.hooks is None and backward_pass() != -1)
        ):
            return False
        if self.values is None or not gates.hold(self.values):
            self.values = gates.values()
            self._forget()
        return True

    @property
    def z(self) -> Tensor:
        """(N,) gate values."""
        assert self.values is not None
        # Splitting them made views; the flat vector is still there, if not in `torch.inference_mode`.
        base, units = base_of(self.values[0]), sum(map(len, self.values))
        return base if base is not None and base.shape == (units,) else torch.cat(self.values)

    def _forget(self) -> None:
        self.flat: Tensor | None = None
        self.scales: dict[Any, tuple[Tensor, ...]] = {}
        self.weights: dict[int, _Made] = {}
        self.opened: dict[int, OpenChannels] | None = None


@functools.cache
def _keep_freed_memory() -> None:
    """Let glibc keep the memory that large gated weights leave behind, instead of giving it back to the system.

    It keeps up to twice the largest block that has ever been freed. With the weights of a ResNet-18, all that a step
    frees would go back, and come again page by page: a quarter of the time of a step, of a dense one's often too.
    """
    # At most 32 MiB count. Nothing is written to it, so that it takes no memory itself.
    block = torch.empty(31 * 2**20, dtype=torch.uint8, device="cpu")
    del block


def _alike(tensors: Sequence[Any], block: Block) -> bool:
    """Whether the tensors of a block are as they were when it was laid out, or have all changed alike."""
    first = tensors[0]
    return all(
        isinstance(tensor, Tensor)
        and tensor.shape == block.shape
        and tensor.dtype == first.dtype
        and tensor.device == first.device
        and tensor.is_contiguous()
        # Of a layer whose turn it is not: `fully_shard` puts each together just before it runs.
        and not is_sharded(tensor)
        for tensor in tensors
    )
