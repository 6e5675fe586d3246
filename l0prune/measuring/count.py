"""What a network costs: parameters, multiply-accumulates, memory."""

import sys
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.hooks import RemovableHandle

from l0prune.support import bilinear_and_grouped_products, plain_attention


def parameters(model: nn.Module) -> int:
    """Number of parameters; shared ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def macs(run: Callable[[], object]) -> int:
    """Multiply-accumulates of the matrix products, convolutions and attention products that `run()` performs.

    Source: torch's FlopCounterMode, which counts two operations for each. `torch.inference_mode` may be on.
    """
    return _counted(run, {}).get_total_flops() // 2


def macs_by_module(model: nn.Module, inputs: Sequence[Tensor]) -> dict[str, int]:
    """Multiply-accumulates of `model(*inputs)` by the path of the module that performs them itself, not in a child.

    Args:
        model: On any device; on "meta" nothing is computed.
        inputs: Positional arguments, on the same device.
    """
    names = {module: f"{_OF_A_MODULE}{path}" for path, module in model.named_modules()}
    found = _counted(lambda: model(*inputs), names).get_flop_counts()
    counts = {path: sum(found[path].values()) // 2 for path in names.values() if path in found}
    return {path.removeprefix(_OF_A_MODULE): count for path, count in counts.items() if count}


_OF_A_MODULE = "."
"""Before the paths of modules, so that none is called as the counter calls the total."""


class _Innermost:
    """Tells a FlopCounterMode which module runs: the innermost one that has a name.

    The counter's own tracker waits for gradients of whatever modules are called on. Under `torch.inference_mode` there
    are none, and a module that is called on a parameter, as parametrizations are (weight norm), makes it fail.

    Args:
        names: What counts are kept under.
    """

    def __init__(self, names: Mapping[nn.Module, str]) -> None:
        self._names, self._running = names, list[str]()
        self._hooks: list[RemovableHandle] = []

    @property
    def parents(self) -> set[str]:
        """Where a count goes: to the total, and to the module."""
        return {"Global", *self._running[-1:]}

    def __enter__(self) -> None:
        def enter(module: nn.Module, _: object) -> None:
            if module in self._names:
                self._running.append(self._names[module])

        def leave(module: nn.Module, *_: object) -> None:
            if module in self._names:
                self._running.pop()

        self._hooks = [
            register_module_forward_pre_hook(enter),
            register_module_forward_hook(leave, always_call=True),
        ]

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()


def _also_counted() -> dict[Any, Any]:
    """Products that torch's counter does not know, with the number of operations, two for each of their terms."""
    trilinear, grouped = bilinear_and_grouped_products()
    known: dict[Any, Any] = {trilinear: _operations_of_trilinear}
    if grouped is not None:
        known[grouped] = _operations_of_grouped
    # Operators of packages that are imported, if they are.
    for library, name, count in (
        ("transformers", "grouped_mm_fallback", _operations_of_grouped),
        ("torchvision", "deform_conv2d", _operations_of_deformable),
    ):
        if library in sys.modules and hasattr(getattr(torch.ops, library), name):
            known[getattr(getattr(torch.ops, library), name)] = count
    return known


def _operations_of_trilinear(one: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return 2 * one[0] * prod(weight)


def _operations_of_grouped(x: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return 2 * prod(x) * weight[-1]


def _operations_of_deformable(x: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return 2 * prod(out_shape) * prod(weight[1:])


@torch.no_grad()
def _counted(run: Callable[[], object], names: Mapping[nn.Module, str]) -> FlopCounterMode:
    counter = FlopCounterMode(display=False, custom_mapping=_also_counted())
    counter.mod_tracker = _Innermost(names)  # pyright: ignore[reportAttributeAccessIssue]
    # Fused kernels are unknown to the counter; the plain ones are matrix products that it knows.
    with sdpa_kernel(SDPBackend.MATH), plain_attention(), counter:
        run()
    return counter
