"""Whether a network trains as the dense one while all gates are open, compared before anything is gated."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from l0prune.example import Observe
from l0prune.gates import GatedModel
from l0prune.groups import PruneGroup
from l0prune.proof.bisection import guilty, kind_of
from l0prune.proof.exactness import ROUNDING_MARGIN, moved, relative_difference, run_seeded
from l0prune.support import evaluating, kept_values, listed, one_line, random_state_kept, tree_leaves

_KEEP_ALL = 1e-15


def find_training_faults(
    model: nn.Module, groups: Sequence[PruneGroup], observe: Observe, tolerance: float
) -> tuple[dict[str, str], list[str]]:
    """What gates change in training mode, from one random state and with all of them open: dropouts and the like too.

    Args:
        model: The dense model, without gates; it is left as it is.
        groups: Its prune groups, which can be gated.
        observe: Runs a model on example inputs.
        tolerance: Largest relative difference allowed.

    Returns:
        Reasons against groups, by name, and remarks.
    """

    def failed(error: Exception) -> tuple[dict[str, str], list[str]]:
        reason = f"the forward pass failed ({type(error).__name__}: {one_line(error)})"
        return {}, [f"gated and dense were not compared in training mode: {reason}"]

    try:
        before = kept_values(model)
        dense, kept = _trained(model, observe)
    except Exception as error:
        return failed(error)
    notes = _not_compared(model, before, dense)
    numbers = list(kept)

    def from_dense() -> float:
        outputs, now = _trained(model, observe)
        common = [name for name in numbers if name in now]
        return relative_difference((dense, [kept[n] for n in common]), (outputs, [now[n] for n in common]))

    def difference(some: Sequence[PruneGroup]) -> float:
        gated = GatedModel(model, some, target_sparsity=_KEEP_ALL)
        try:
            with gated.gates.fixed(torch.ones_like(gated.gates.log_alpha)):
                return from_dense()
        finally:
            gated.detach()

    if difference(groups) <= tolerance:
        return {}, notes
    try:
        again, kept_again = _trained(model, observe)
    except Exception as error:
        return failed(error)
    if relative_difference(dense, again) > tolerance:
        return {}, ["gated and dense were not compared in training mode: the forward pass does not repeat itself there"]
    # A counter, or a moving average, goes on from pass to pass.
    numbers = [name for name in kept if name in kept_again and torch.equal(kept[name], kept_again[name])]

    def rounding() -> float:
        with moved(model):
            return from_dense()

    whole = difference(groups)
    if whole <= tolerance or whole <= ROUNDING_MARGIN * rounding():
        return {}, notes

    def against(some: Sequence[PruneGroup]) -> str:
        found = difference(some)
        if found <= tolerance:
            return ""
        return (
            f"with gates that are all open it trains otherwise than the dense network: relative difference "
            f"{found:.1e} in training mode, at most {tolerance:.0e} allowed"
        )

    return {group.name: reason for group, reason in guilty(groups, against, kind_of)}, notes


def _not_compared(model: nn.Module, before: Mapping[str, Any], outputs: Any) -> list[str]:
    """What of a pass nothing can be compared with: other outputs than numbers, activations that modules keep."""
    known = float | complex | np.inexact | np.ndarray | Tensor | None
    kinds = {type(leaf).__name__ for leaf in tree_leaves(outputs) if not isinstance(leaf, known)}
    kept = [
        name
        for name, value in kept_values(model).items()
        if isinstance(value, Tensor) and value.numel() > 1 and before.get(name) is not value
    ]
    notes = [f"outputs of these types are not compared: {listed(sorted(kinds))}"] if kinds else []
    return [*notes, f"kept by modules of a forward pass, not compared: {listed(kept)}"] if kept else notes


@torch.no_grad()
def _trained(model: nn.Module, observe: Observe) -> tuple[Any, dict[str, Tensor]]:
    """Outputs in training mode from a given random state, and single numbers that modules keep of the pass.

    Those may be losses. Modes, statistics and random states are put back.
    """
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    # It puts the modes back, whichever is on meanwhile.
    with evaluating(model), random_state_kept():
        model.train()
        random.seed(0)
        np.random.seed(0)
        try:
            outputs = run_seeded(observe, model)
            kept = kept_values(model).items()
            return outputs, {name: x.clone() for name, x in kept if isinstance(x, Tensor) and x.numel() == 1}
        finally:
            for buffer, before in buffers:
                buffer.copy_(before)
