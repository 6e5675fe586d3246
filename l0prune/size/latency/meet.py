"""From a network that is predicted to be as fast as asked to one that is when measured."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from l0prune.example import Observe
from l0prune.measuring import interleave, speedup
from l0prune.size.metric import Cut
from l0prune.support import plain

_ATTEMPTS = 4
_CLOSE = 0.03
"""How near the measured target is near enough."""
_RANGE = 0.4
"""How far the budget may move: a machine that was busy for a moment must not ruin the network."""
_SECONDS = 5.0


def meet_target(
    gated: Cut,
    dense: nn.Module,
    observe: Observe,
    deploy: Callable[[nn.Module], nn.Module] | None,
    left: float,
    note: Callable[[str], None],
    *,
    at_most: bool = False,
) -> dict[str, float]:
    """Move the budget until the pruned network is as fast as asked, measured rather than predicted.

    Args:
        gated: The gated model, in evaluation mode, under a latency model; its budget moves.
        dense: The dense model, without gates.
        observe: Runs a model on the input whose latency matters.
        deploy: Gives a model the form in which it will run.
        left: The share of the dense latency that is to be left.
        note: Told of each measurement.
        at_most: A faster network will do: another budget may be what binds.

    Returns:
        latency_before_ms, latency_after_ms, speedup, as measured last.
    """
    deploy = deploy or (lambda network: network)
    dense, predicted = deploy(dense), gated.gates.budget
    for attempt in range(_ATTEMPTS):
        results = _measure(dense, deploy(gated.pruned()[0]), observe)
        before, after, ratio = (results[key] for key in ("latency_before_ms", "latency_after_ms", "speedup"))
        note(f"measured: {plain(before)} ms dense, {plain(after)} ms pruned, {ratio:.2f} times faster")
        if abs(1 / (ratio * left) - 1) <= _CLOSE or (at_most and ratio * left >= 1 and _has_room(gated)):
            return results
        if attempt + 1 == _ATTEMPTS:
            note(f"the target of {1 / left:.2f} times is missed by {abs(1 / (ratio * left) - 1):.0%}")
            return results
        moved = gated.gates.budget * left * ratio
        low, high = ((1 + sign * _RANGE) * predicted for sign in (-1, 1))
        floor = gated.size_model.floor_for(gated.gates.config.multiple)
        gated.gates.allow(max(floor, round(min(max(moved, low), high))))
    raise AssertionError  # The last attempt returns.


def _has_room(gated: Cut) -> bool:
    """Whether the predicted time is below its budget, so that another budget is what binds."""
    groups, kept = gated.gates.groups, gated.gates.select()
    counts = np.array([part.sum() for part in np.split(kept, np.cumsum([group.units for group in groups])[:-1])])
    return gated.size_model.exact(counts) < (1 - _CLOSE) * gated.gates.budget


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
