"""From a time that is asked for to a share of the dense one, and to a network that is as fast when measured."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from l0prune.config import RunConfig
from l0prune.errors import TargetError
from l0prune.gates.gated_model import GatedModel
from l0prune.measuring.timing import interleave, speedup
from l0prune.size.latency.model import TICKS, LatencyModel
from l0prune.size.latency.samples import Observe

_ATTEMPTS = 4
_CLOSE = 0.03
"""How near the measured target is near enough."""
_RANGE = 0.4
"""How far the budget may move: a machine that was busy for a moment must not ruin the network."""
_SECONDS = 5.0
_LEAST = 0.01
"""Share of the model's total that is removed where it promises the target from the start."""


def sparsity_for(latency: LatencyModel, config: RunConfig) -> tuple[float, float]:
    """What a run's target removes.

    Returns:
        The share of the dense latency as measured, and the share of the latency model's total that amounts to it.

    Raises:
        TargetError: No plan is as fast as asked; says what can be reached on this device.
    """
    dense = latency.dense_ms / 1000 * TICKS
    fastest = latency.size.floor_for(latency.round_to) / dense
    if config.target_speedup is not None:
        left = 1 / config.target_speedup
    elif config.target_ms is not None:
        left = config.target_ms / latency.dense_ms
        if left >= 1:
            hint = "there is nothing to remove"
            raise TargetError(
                "dense network is as fast",
                got=f"{config.target_ms} ms",
                expected=f"below {latency.dense_ms:.1f} ms",
                hint=hint,
            )
    else:
        left = 1 - config.target_sparsity
    if left < fastest:
        got = f"{1 / left:.2f} times faster, {left * latency.dense_ms:.1f} ms"
        expected = f"at most {1 / fastest:.2f} times, {fastest * latency.dense_ms:.1f} ms, on this device"
        raise TargetError("latency target cannot be met", got=got, expected=expected, hint="prune more kinds of unit")
    return 1 - left, max(_LEAST, 1 - left * dense / latency.size.total)


def meet_target(
    gated: GatedModel,
    dense: nn.Module,
    observe: Observe,
    deploy: Callable[[nn.Module], nn.Module] | None,
    left: float,
    note: Callable[[str], None],
) -> dict[str, float]:
    """Move the budget until the pruned network is as fast as asked, measured rather than predicted.

    Args:
        gated: The gated model, in evaluation mode, under a latency model; its budget moves.
        dense: The dense model, without gates.
        observe: Runs a model on the input whose latency matters.
        deploy: Gives a model the form in which it will run.
        left: The share of the dense latency that is to be left.
        note: Told of each measurement.

    Returns:
        latency_before_ms, latency_after_ms, speedup, as measured last.
    """
    deploy = deploy or (lambda network: network)
    dense, predicted = deploy(dense), gated.gates.budget
    for attempt in range(_ATTEMPTS):
        results = _measure(dense, deploy(gated.pruned()[0]), observe)
        before, after, ratio = (results[key] for key in ("latency_before_ms", "latency_after_ms", "speedup"))
        note(f"measured: {before:.1f} ms dense, {after:.1f} ms pruned, {ratio:.2f} times faster")
        if abs(1 / (ratio * left) - 1) <= _CLOSE:
            return results
        if attempt + 1 == _ATTEMPTS:
            note(f"the target of {1 / left:.2f} times is missed by {abs(1 / (ratio * left) - 1):.0%}")
            return results
        moved = gated.gates.budget * left * ratio
        low, high = ((1 + sign * _RANGE) * predicted for sign in (-1, 1))
        floor = gated.size_model.floor_for(gated.gates.config.round_to or 1)
        gated.gates.allow(max(floor, round(min(max(moved, low), high))))
    raise AssertionError  # The last attempt returns.


def _measure(dense: nn.Module, pruned: nn.Module, observe: Observe) -> dict[str, float]:
    """Latency of both in turns."""
    networks: dict[str, Any] = {"dense": dense.eval(), "pruned": pruned.eval()}

    def run(name: str) -> None:
        with torch.inference_mode():
            observe(networks[name])

    device = str(next(dense.parameters(), torch.zeros(())).device)
    times = interleave({name: functools.partial(run, name) for name in networks}, seconds=_SECONDS, device=device)
    return {
        "latency_before_ms": 1000 * times["dense"].median,
        "latency_after_ms": 1000 * times["pruned"].median,
        "speedup": speedup(times["dense"], times["pruned"]).median,
    }
