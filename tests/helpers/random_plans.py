"""Plans drawn at random, and what always holds of them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from l0prune import GatedModel, RemovalPlan
from l0prune.measuring.count import parameters


@torch.no_grad()
def random_cut(
    gated: GatedModel, observe: Callable[[nn.Module], Any], random: np.random.Generator
) -> tuple[Any, nn.Module, RemovalPlan, np.ndarray]:
    """Outputs under random gates, the copy that they leave, its plan, and how many units of each group stay (G,)."""
    values = []
    for group in gated.groups:
        gates = random.uniform(0.3, 0.9, group.units)
        gates[random.permutation(group.units)[: random.integers(0, group.units - group.least_units + 1)]] = 0
        values.append(gates)
    with gated.gates.fixed(torch.from_numpy(np.concatenate(values))):
        expected, (pruned, plan) = observe(gated.model), gated.pruned()
    kept = np.array([*plan.kept_counts.values()])
    if not any(group.bypass for group in gated.groups):
        # What stands in an emptied block goes with it.
        assert kept.tolist() == [(gates > 0).sum() for gates in values]
    assert gated.parameter_model.exact(kept) == parameters(pruned)
    return expected, pruned, plan, kept
