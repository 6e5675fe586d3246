"""Checks that removal changes nothing: gated outputs equal pruned outputs, planned size equals counted size."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from l0prune.errors import DataError, PlanError, ProofError
from l0prune.gating import GatedModel
from l0prune.groups import PruneGroup
from l0prune.measure import parameters

Observe = Callable[[nn.Module], Any]
"""Runs a model on example inputs and returns its outputs: tensors in any nesting."""

TOLERANCE = 1e-5
"""Largest relative difference in float32."""


def relative_difference(expected: object, got: object) -> float:
    """Largest |expected - got| / max |expected| over the tensors of two outputs of one structure."""
    first, second = ([leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)] for tree in (expected, got))
    worst = 0.0
    for a, b in zip(first, second, strict=True):
        if a.shape != b.shape:
            return float("inf")
        if a.numel() and _has_fractions(a):
            wide = torch.complex128 if a.is_complex() else torch.float64
            a, b = a.detach().to(wide), b.detach().to(wide)
            difference = float((a - b).abs().max() / a.abs().max().clamp_min(1e-30))
            worst = max(worst, float("inf") if math.isnan(difference) else difference)
    return worst


def _has_fractions(leaf: object) -> bool:
    return isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())


@torch.no_grad()
def compare(gated: GatedModel, observe: Observe) -> float:
    """Relative difference between the gated model's evaluation outputs and those of the pruned copy.

    Raises:
        ProofError: The pruned copy has not the size that was planned.
        DataError: The outputs hold nothing to compare.
    """
    training = gated.training
    gated.eval()
    try:
        expected = observe(gated.model)
        if not any(_has_fractions(leaf) for leaf in tree_leaves(expected)):
            got = ", ".join(sorted({type(leaf).__name__ for leaf in tree_leaves(expected)})) or "nothing"
            hint = "let `observe` return tensors, in tuples, lists or dictionaries"
            raise DataError("outputs hold no floating-point tensor to compare", got=got, hint=hint)
        pruned, _ = gated.pruned()
        # What the selection counts by, which knows nothing of the other groups around an emptied block.
        counts = np.array([int((values > 0).sum()) for values in gated.gate_values().values()])
        planned, counted = gated.size_model.exact(counts), parameters(pruned)
        if planned != counted:
            raise ProofError("pruned size differs from the plan", got=f"{counted:,}", expected=f"{planned:,}")
        return relative_difference(expected, observe(pruned))
    finally:
        gated.train(training)


def prove_groups(gated: GatedModel, observe: Observe, *, tolerance: float = TOLERANCE) -> float:
    """Check every group on the caller's model, with random units closed and some blocks emptied.

    Args:
        gated: The gated model; its gates are left as they were.
        observe: Runs a model on example inputs.
        tolerance: Largest relative difference allowed.

    Returns:
        The largest relative difference seen.

    Raises:
        ProofError: Names the first group whose removal changes outputs or size, and why.
    """
    difference, faults = find_faults(gated, observe, tolerance=tolerance)
    for name, reason in faults.items():
        hint = "its places in the weights are incomplete or wrong: leave it out of the groups"
        raise ProofError("pruning this group is not exact", where=name, got=reason, hint=hint)
    return difference


def find_faults(gated: GatedModel, observe: Observe, *, tolerance: float = TOLERANCE) -> tuple[float, dict[str, str]]:
    """The largest difference seen, and the reason against each group that cannot be pruned exactly, by name.

    All groups are closed together first; only when that fails is each tried alone, to name the ones to blame.
    """
    closing = range(len(gated.groups))
    worst = 0.0
    for seed, emptied in enumerate(_emptied(gated.groups)):
        difference, reason = _try(gated, observe, closing, emptied, seed)
        worst = max(worst, difference)
        if not difference <= tolerance:
            faults = _blame(gated, observe, tolerance)
            return worst, faults or {"all groups together": reason or f"relative difference {difference:.1e}"}
    return worst, {}


def _emptied(groups: Sequence[PruneGroup]) -> list[set[int]]:
    """Groups to empty, trial by trial: none, then those around every other block, then those around the rest.

    Several groups around one block (its units, and the block as a whole) take turns.
    """
    around: dict[str, list[int]] = {}
    for g, group in enumerate(groups):
        if group.bypass:
            around.setdefault(group.bypass.module, []).append(g)
    blocks = list(around.values())
    turns = max(map(len, blocks), default=1)
    return [
        set(),
        *({block[turn % len(block)] for block in blocks[half::2]} for turn in range(turns) for half in (0, 1)),
    ]


def _blame(gated: GatedModel, observe: Observe, tolerance: float) -> dict[str, str]:
    faults = {}
    # What fails with every unit open fails whichever group is tried.
    if not _try(gated, observe, [], set(), seed=1)[0] <= tolerance:
        return faults
    for g, group in enumerate(gated.groups):
        for emptied in (set(), {g}) if group.bypass else (set(),):
            difference, reason = _try(gated, observe, [g], emptied, seed=1)
            if not difference <= tolerance:
                faults[group.name] = reason or f"relative difference {difference:.1e}, at most {tolerance:.0e} allowed"
    return faults


def _try(
    gated: GatedModel, observe: Observe, closing: Sequence[int], emptied: set[int], seed: int
) -> tuple[float, str]:
    values = _pattern(gated.groups, closing, emptied, torch.Generator().manual_seed(seed))
    try:
        with gated.gates.fixed(values):
            return compare(gated, observe), ""
    except (ProofError, PlanError, RuntimeError, ValueError, IndexError) as error:
        return float("inf"), " ".join(str(error).split())


def _pattern(
    groups: Sequence[PruneGroup], closing: Sequence[int], emptied: set[int], generator: torch.Generator
) -> Tensor:
    """Random gate values (N,): half the units of the groups in `closing` are closed, those of `emptied` all."""
    parts = []
    for g, group in enumerate(groups):
        values = torch.ones(group.units)
        if g in closing:
            values = 0.3 + 0.7 * torch.rand(group.units, generator=generator)
            closed = group.units if g in emptied else group.units // 2
            values[torch.randperm(group.units, generator=generator)[:closed]] = 0
        parts.append(values)
    return torch.cat(parts)
