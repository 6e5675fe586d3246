"""Compaction: units that have closed for good leave the network during training, which gets cheaper as it shrinks.

A cut is a removal plan like any other, without folding: gates stay on what is left. It takes only units that the
deterministic selection leaves out anyway, so that the network's evaluation outputs are the same before and after.

Legend: N units of all groups.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from l0prune.config import CompactionConfig
from l0prune.distributed import from_main
from l0prune.gates import GatedModel
from l0prune.groups import PruneGroup, Role
from l0prune.removal import RemovalPlan
from l0prune.support import is_inside

_NEAR = 0.01
"""How far below its target the expected sparsity may be for the target to count as reached."""


class Compactor:
    """Finds the units that have closed for good.

    A unit has if its keep probability was below a bound at several looks in a row, the expected size has been at its
    target once, and the deterministic selection leaves the unit out.

    Args:
        gated: The gated model.
        config: When to cut.
    """

    def __init__(self, gated: GatedModel, config: CompactionConfig) -> None:
        self.gated, self.config, self.reached = gated, config, False
        self.looks = np.zeros(len(gated.here), dtype=np.int64)
        """(N,) looks in a row at which each unit was closed."""

    def look(self, target: float) -> np.ndarray | None:
        """Look at the gates, in every process.

        Args:
            target: The sparsity asked for at this step.

        Returns:
            (N,) bool, True for units to leave in the network; None while too few would go.
        """
        gates = self.gated.gates
        with torch.no_grad():
            closed = gates.keep_probabilities().cpu().numpy() < self.config.closed_below
            expected = float(self.gated.expected_sparsity())
        self.looks = np.where(closed, self.looks + 1, 0)
        self.reached = self.reached or (target >= self.gated.target_sparsity and expected >= target - _NEAR)
        if not self.reached:
            return None
        kept = self._left(gates.select())
        size, units = gates.size_model, np.array([group.units for group in gates.groups])
        counts = np.add.reduceat(kept, np.cumsum(units) - units).astype(np.int64)
        worth_it = size.exact(counts) <= (1 - self.config.least_share) * size.exact(units)
        return kept if worth_it and not kept.all() else None

    def state(self) -> dict[str, Any]:
        """What a bit-exact continuation needs."""
        return {"reached": self.reached, "looks": self.looks.tolist()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned, once the model has been cut as it was then."""
        self.reached, self.looks = state["reached"], np.array(state["looks"], dtype=np.int64)

    def cut(self, kept: np.ndarray, optimizer: Optimizer) -> RemovalPlan:
        """`compact`, with the looks of what is left."""
        before = self.gated.here
        plan = compact(self.gated, kept, optimizer)
        self.looks = self.looks[np.isin(before, self.gated.here)]
        return plan

    def _left(self, selected: np.ndarray) -> np.ndarray:
        gates = self.gated.gates
        left = from_main(torch.from_numpy(selected | (self.looks < self.config.patience)).to(torch.uint8)).numpy() > 0
        scores, start = gates.log_alpha.detach().cpu().numpy(), 0
        round_to = gates.config.round_to or 1
        for group in gates.groups:
            mine = slice(start, start + group.units)
            count = int(left[mine].sum())
            # The selection keeps multiples of `round_to`, or all: what is left must allow it the same choice.
            count = min(group.units, -(-count // round_to) * round_to)
            if count == 0 and _holds_readers(group, gates.groups):
                count = 1
            best = np.argsort(-np.where(left[mine], np.inf, scores[mine]), kind="stable")[:count]
            left[start + best] = True
            start += group.units
        return left


def _holds_readers(group: PruneGroup, groups: Sequence[PruneGroup]) -> bool:
    """Whether the block that goes with an empty group holds all that reads some other group's units."""
    if group.bypass is None:
        return False
    block = group.bypass.module
    return any(
        all(is_inside(place.tensor, block) for place in other.places if place.role is Role.CONSUMES)
        for other in groups
        if other.bypass is None or other.bypass.module != block
    )


def compact(gated: GatedModel, kept: np.ndarray, optimizer: Optimizer) -> RemovalPlan:
    """Cut units out of a gated model in place: weights, gates, and the optimizer's state and gradients of both.

    Args:
        gated: The gated model.
        kept: (N,) bool, True for units that are left.
        optimizer: Trains its weights and gates; parameters that are gone leave its parameter groups.

    Returns:
        The plan, in the indices of the model as it was.

    Raises:
        GroupError: An emptied block holds all that reads another group's units; nothing is cut then.
    """
    gates, units = gated.gates.log_alpha, gated.here
    plan, parameters = gated.shrink(kept)
    along: dict[str, list[tuple[int, np.ndarray]]] = {}
    for (tensor, dim), index in plan.survivors().items():
        along.setdefault(tensor, []).append((dim, index))
    cuts = {old: (new, along.get(name, [])) for name, (old, new) in parameters.items()}
    cuts[gates] = (gated.gates.log_alpha, [(0, np.flatnonzero(np.isin(units, gated.here)))])
    for group in optimizer.param_groups:
        triples = [(old, *cuts.get(old, (old, []))) for old in group["params"]]
        group["params"] = [new for _, new, _ in triples if new is not None]
        for old, new, indices in triples:
            if new is not old:
                _carry(optimizer, old, new, indices)
    return plan


def _carry(
    optimizer: Optimizer, old: nn.Parameter, new: nn.Parameter | None, cuts: Sequence[tuple[int, np.ndarray]]
) -> None:
    """Give a cut parameter what is left of its predecessor's gradient and of the optimizer's state."""
    state = optimizer.state.pop(old, {})
    if new is None:
        return
    if old.grad is not None:
        new.grad = _cut(old.grad, cuts)
    if state:
        shape = old.shape
        optimizer.state[new] = {
            key: _cut(value, cuts) if isinstance(value, Tensor) and value.shape == shape else value
            for key, value in state.items()
        }


def _cut(tensor: Tensor, cuts: Sequence[tuple[int, np.ndarray]]) -> Tensor:
    for dim, index in cuts:
        tensor = tensor.index_select(dim, torch.from_numpy(index).to(tensor.device))
    return tensor
