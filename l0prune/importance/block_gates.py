"""Gates on what whole residual blocks add, one for each example: their gradients say what a block is worth."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from l0prune.groups import PruneGroup


@contextmanager
def gated_blocks(model: nn.Module, groups: Sequence[PruneGroup]) -> Iterator[dict[str, list[Tensor]]]:
    """Meanwhile what blocks add is multiplied with gates that are 1.

    Args:
        model: The model.
        groups: Groups that own whole blocks, found by following the residual stream.

    Yields:
        The gates by group name, (n, 1, ...) for each call of a module that makes what is added, for n examples.
    """
    made: dict[str, list[Tensor]] = {group.name: [] for group in groups}
    handles = []
    for group in groups:
        assert group.bypass is not None
        # One module that returns its input without the block; or those that return zero.
        last = [b for b in group.bypasses if not b.returns.startswith("input")] or [group.bypass]
        for bypass in last:
            gates, passes = made[group.name], bypass.returns.startswith("input")

            def after(
                _: nn.Module,
                args: tuple[Any, ...],
                kwargs: dict[str, Any],
                out: Any,
                *,
                gates: list[Tensor] = gates,
                passes: bool = passes,
            ) -> Any:
                y = out[0] if isinstance(out, tuple) else out
                gate = torch.ones(len(y), *[1] * (y.ndim - 1), dtype=y.dtype, device=y.device, requires_grad=True)
                gates.append(gate)
                if passes:
                    x = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
                    gated = y + (gate - 1) * (y - x)
                else:
                    gated = y * gate
                return (gated, *out[1:]) if isinstance(out, tuple) else gated

            handles.append(model.get_submodule(bypass.module).register_forward_hook(after, with_kwargs=True))
    try:
        yield made
    finally:
        for handle in handles:
            handle.remove()
