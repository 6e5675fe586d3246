"""The door to pruning in one's own training loop."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from l0prune.groups import PruneGroup
from l0prune.pruner.pruner import L0Pruner
from l0prune.size import Limits, Metric, Targets


def wrap(
    model: nn.Module,
    example_inputs: Any,
    *,
    target_sparsity: float | None = None,
    target: Targets | None = None,
    limits: Limits | None = None,
    metric: str | Metric = "params",
    ignored: nn.Module | str | Sequence[nn.Module | str] = (),
    groups: Sequence[PruneGroup] | None = None,
    **settings: Any,
) -> L0Pruner:
    """Make a model prune itself in its own training loop.

        pruner = l0prune.wrap(model, example_inputs, target_sparsity=0.5)
        optimizer = torch.optim.AdamW(pruner.parameter_groups(lr=1e-3))
        for inputs, labels in batches:
            (loss(model(inputs), labels) + pruner.penalty()).backward()
            optimizer.step()
            optimizer.zero_grad()
            pruner.step()
        smaller = pruner.finalize()

    Args:
        model: Any nn.Module; gates are attached to it in place.
        example_inputs: A tensor; a tuple or list of positional arguments; or a mapping of keyword arguments.
        target_sparsity: Share of the size to remove, in (0, 1).
        target: What is to be left of several metrics at most, in place of `target_sparsity` and `metric`:
            `{"params": 0.25, "macs": 0.3}`.
        limits: A floor and a ceiling by name pattern, shares of the units that a group keeps.
        metric: What the size counts: "params", "macs" on the example inputs, "latency" (then `target_ms` or
            `target_speedup` may stand in place of the share), or a metric of your own.
        ignored: Modules, or their dotted names, whose own units and inputs stay; or one.
        groups: Prune groups of your own, instead of those that following the forward pass finds.
        settings: Further arguments of `L0Pruner`.

    Raises:
        L0PruneError: As `L0Pruner` does.
    """
    # Gates that are made under `torch.inference_mode` could not be trained.
    with torch.inference_mode(False):
        return L0Pruner(
            model,
            example_inputs,
            target_sparsity=target_sparsity,
            target=target,
            limits=limits,
            metric=metric,
            ignored=ignored,
            groups=groups,
            **settings,
        )
