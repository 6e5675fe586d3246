"""Compaction: units that have closed for good leave the network during training, which gets cheaper as it shrinks.

A cut is a removal plan like any other, without folding: gates stay on what is left. It takes only units that the
deterministic selection leaves out anyway, so that the network's evaluation outputs are the same before and after.

Legend: N units of all groups.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from l0prune.config import CompactionConfig
from l0prune.distributed import from_main
from l0prune.errors import TrainingError
from l0prune.gates.gated_model import GatedModel
from l0prune.groups import PruneGroup, Role
from l0prune.removal import RemovalPlan
from l0prune.size import classes_of
from l0prune.support import is_inside, tree_leaves, tree_map

_Cuts = Sequence[tuple[int, np.ndarray]]
"""Dimensions of a parameter, and the indices that are left along each."""

_NEAR = 0.01
"""How far below its target the expected sparsity may be for the target to count as reached."""


class Compactor(nn.Module):
    """Finds the units that have closed for good. Its buffers are all that a continuation needs.

    A unit has if its keep probability was below a bound at several looks in a row, the expected size has been at its
    target once, and the deterministic selection leaves the unit out.

    Args:
        gated: The gated model.
        config: When to cut.
    """

    here: Tensor
    """(N,) the units that have not left, by their numbers in the dense model."""
    looks: Tensor
    """(N,) looks in a row at which each unit was closed."""
    reached: Tensor
    """1 once the expected size has been at its target, else 0."""

    def __init__(self, gated: GatedModel, config: CompactionConfig) -> None:
        super().__init__()
        # A tuple hides it from `modules()`: a model may hold what drives its own gates.
        self._gated, self.config = (gated,), config
        self.register_buffer("here", torch.from_numpy(gated.here.copy()))
        self.register_buffer("looks", torch.zeros(len(gated.here), dtype=torch.int64))
        self.register_buffer("reached", torch.zeros((), dtype=torch.int64))

    def look(self, target: float) -> np.ndarray | None:
        """Look at the gates, in every process.

        Args:
            target: The sparsity asked for at this step.

        Returns:
            (N,) bool, True for units to leave in the network; None while too few would go.
        """
        (gated,), gates = self._gated, self._gated[0].gates
        with torch.no_grad():
            closed = gates.keep_probabilities() < self.config.closed_below
            self.looks = torch.where(closed.to(self.looks.device), self.looks + 1, 0)
        if gated.reached(target, _NEAR):
            self.reached.fill_(1)
        if not int(self.reached):
            return None
        kept = self._left(gates.select())
        size, units = gates.size_model, np.array([group.units for group in gates.groups])
        counts = np.add.reduceat(kept, np.cumsum(units) - units).astype(np.int64)
        worth_it = size.exact(counts) <= (1 - self.config.least_share) * size.exact(units)
        # Gates that are all gone could hold nothing any more, not even what a continuation needs.
        return kept if worth_it and kept.any() and not kept.all() else None

    def shrink(self, left: np.ndarray) -> None:
        """Forget units that are gone for good: (N,) bool, True for those that are left."""
        index = torch.from_numpy(np.flatnonzero(left)).to(self.here.device)
        self.here, self.looks = self.here[index], self.looks[index]

    def _left(self, selected: np.ndarray) -> np.ndarray:
        gates, waiting = self._gated[0].gates, self.looks.cpu().numpy() < self.config.patience
        left = from_main(torch.from_numpy(selected | waiting).to(torch.uint8)).numpy() > 0
        scores, starts = gates.log_alpha.detach().cpu().numpy(), np.cumsum([0, *(g.units for g in gates.groups)])
        parts = [slice(start, start + group.units) for start, group in zip(starts, gates.groups, strict=False)]
        round_to = gates.config.multiple
        counts = np.zeros(len(parts), dtype=np.int64)
        for g, (mine, group) in enumerate(zip(parts, gates.groups, strict=True)):
            # The selection keeps multiples of `round_to`, or all: what is left must allow it the same choice.
            counts[g] = min(group.units, -(-int(left[mine].sum()) // round_to) * round_to)
            if counts[g] == 0 and _holds_readers(group, gates.groups):
                counts[g] = 1
        # And groups that are to keep equally many must go on having equally many.
        classes = classes_of(gates.groups, uniform=gates.config.uniform)
        most = np.zeros_like(counts)
        np.maximum.at(most, classes, counts)
        for mine, count in zip(parts, most[classes], strict=True):
            best = np.argsort(-np.where(left[mine], np.inf, scores[mine]), kind="stable")[:count]
            left[mine.start + best] = True
        return left


def _holds_readers(group: PruneGroup, groups: Sequence[PruneGroup]) -> bool:
    """Whether the block that goes with an empty group holds all that reads some other group's units."""
    if group.bypass is None:
        return False
    block, paths = group.bypass.module, [bypass.module for bypass in group.bypasses]
    return any(
        all(is_inside(place.tensor, *paths) for place in other.places if place.role is Role.CONSUMES)
        for other in groups
        if (other.bypass is None or other.bypass.module != block) and not other.stands_inside(paths)
    )


def compact(gated: GatedModel, kept: np.ndarray, *optimizers: Optimizer) -> RemovalPlan:
    """Cut units out of a gated model in place: weights, gates, and the optimizers' states and gradients of both.

    Args:
        gated: The gated model.
        kept: (N,) bool, True for units that are left.
        optimizers: Train its weights and gates; parameters that are gone leave their parameter groups.

    Returns:
        The plan, in the indices of the model as it was.

    Raises:
        GroupError: An emptied block holds all that reads another group's units; nothing is cut then.
        TrainingError: An optimizer's state cannot be cut; nothing is cut then.
    """
    for optimizer in optimizers:
        _check_state(optimizer)
    gates, units = gated.gates.log_alpha, gated.here
    plan, parameters = gated.shrink(kept)
    along: dict[str, list[tuple[int, np.ndarray]]] = {}
    for (tensor, dim), index in plan.survivors().items():
        along.setdefault(tensor, []).append((dim, index))
    cuts = {old: (new, along.get(name, [])) for name, (old, new) in parameters.items()}
    cuts[gates] = (gated.gates.log_alpha, [(0, np.flatnonzero(np.isin(units, gated.here)))])
    for old, (new, indices) in cuts.items():
        if new is not None and new is not old and old.grad is not None:
            new.grad = _cut(old.grad, old.shape, indices)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            triples = [(old, *cuts.get(old, (old, []))) for old in group["params"]]
            group["params"] = [new for _, new, _ in triples if new is not None]
            for old, new, indices in triples:
                state = optimizer.state.pop(old, {}) if new is not old else {}
                if new is not None and state:
                    optimizer.state[new] = tree_map(_cutting(old.shape, indices), state)
    return plan


def _check_state(optimizer: Optimizer) -> None:
    """Refuse an optimizer whose state does not lie along its parameters.

    Raises:
        TrainingError: Of one, at least, it does not.
    """
    for parameter, state in optimizer.state.items():
        for value in tree_leaves(state):
            if isinstance(value, Tensor) and not _lies_along(value.shape, parameter.shape):
                raise TrainingError(
                    "compaction cannot cut the optimizer's state",
                    where=type(optimizer).__name__,
                    got=f"{list(value.shape)} for a parameter of {list(parameter.shape)}",
                    hint="train without compaction, or with an optimizer whose state has the parameter's shape",
                )


def _lies_along(shape: Sequence[int], parameter: Sequence[int]) -> bool:
    """Whether a tensor is a single number, or has a parameter's dimensions, some of which may be 1."""
    if all(size == 1 for size in shape):
        return True
    return len(shape) == len(parameter) and all(a in (1, b) for a, b in zip(shape, parameter, strict=True))


def _cutting(shape: Sequence[int], cuts: _Cuts) -> Callable[[Any], Any]:
    return lambda value: _cut(value, shape, cuts) if isinstance(value, Tensor) else value


def _cut(tensor: Tensor, shape: Sequence[int], cuts: _Cuts) -> Tensor:
    """What is left of a tensor that lies along a parameter of that shape."""
    for dim, index in cuts:
        if tensor.ndim == len(shape) and tensor.shape[dim] == shape[dim]:
            tensor = tensor.index_select(dim, torch.from_numpy(index).to(tensor.device))
    return tensor
