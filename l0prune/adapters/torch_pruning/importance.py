"""Learned keep probabilities for pruners of torch-pruning's.

Legend: a group of torch-pruning's lists items; an item is a dependency (a layer and the function that prunes it), the
channels that it prunes there, and for each of them the channel of the group's root layer that it follows. C channels of
the root layer, N units of all our groups one after the other.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch_pruning.pruner.importance import Importance

from l0prune.adapters.dependency_graphs import owners_of, places_of
from l0prune.errors import ConfigError, GroupError
from l0prune.gates import GatedModel
from l0prune.groups import PruneGroup
from l0prune.importance import checked_scores
from l0prune.pruner import L0Pruner


def without_gates(learned: L0Pruner | GatedModel) -> nn.Module:
    """A dense copy of a gated model, for a pruner of torch-pruning's: gates are folded into the weights.

    The copy computes what the gated model computes in evaluation mode: what reads a closed unit has weights of zero.
    (A LayerNorm, GroupNorm or RMSNorm takes its statistics over closed units too, until they are cut.)

    Args:
        learned: What `wrap` returned, or the gated model itself; it is left as it is.
    """
    return (learned.gated if isinstance(learned, L0Pruner) else learned).folded()


class L0Importance(Importance):
    """Learned keep probabilities as an importance for any of torch-pruning's pruners.

        learner = l0prune.wrap(model, example_inputs, target_sparsity=0.5)
        ...  # train
        dense = without_gates(learner)
        pruner = torch_pruning.pruner.BasePruner(dense, example_inputs, importance=L0Importance(learner))
        pruner.step()

    A channel of torch-pruning's is matched to our unit by module and index, so that the pruner's model must have the
    names and the shapes of the one whose gates were learned. A channel that holds several of our units is as important
    as the most important one. Pruning in several steps is followed by the graph's pruning history.

    Args:
        learned: What `wrap` returned, a `GatedModel`; or importances of units, (N,) or {group name: numbers}.
        groups: The groups that importances (N,) belong to.
        unknown: The importance of channels that our groups do not know. By default a group of which no channel is known
            is left alone, and channels that are missing in other groups are taken for the most important ones. Give a
            number to pruners that regularise: they need one for each channel.

    Raises:
        ConfigError: Importances come without groups, or are not one finite number for each unit.
    """

    def __init__(
        self,
        learned: L0Pruner | GatedModel | np.ndarray | Tensor | Mapping[str, Any] | Sequence[float],
        groups: Sequence[PruneGroup] | None = None,
        *,
        unknown: float | None = None,
    ) -> None:
        if isinstance(learned, L0Pruner | GatedModel):
            gated = learned.gated if isinstance(learned, L0Pruner) else learned
            groups, gates = gated.groups, gated.gates
            # In float32 many a keep probability rounds to 1; log_alpha still tells them apart.
            learned = gates.distribution.keep_probability(gates.log_alpha.detach().double())
        if not groups:
            raise ConfigError("importances come without groups", hint="L0Importance(importances, groups)")
        self.groups, self.unknown = tuple(groups), unknown
        self.scores = checked_scores(learned, self.groups, "L0Importance")
        self._owners = owners_of(self.groups)
        self._graph: Any = None

    @torch.no_grad()
    def __call__(self, group: Any) -> Tensor | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The importance of each root channel, (C,) float64; None leaves the group alone.

        Raises:
            GroupError: The pruner's model is not like the one that was learned on, or was changed past its pruner.
        """
        graph = group._DG
        if graph is not self._graph:
            if graph.pruning_history():
                hint = "give L0Importance to the pruner of the dense model"
                raise GroupError("the model was pruned before", hint=hint)
            self._graph, self._alive, self._roots, self._members, self._done = graph, {}, {}, {}, 0
        self._catch_up()
        dep = group[0].dep
        is_out = graph.is_out_channel_pruning_fn(dep.handler)
        root = graph._module2name[dep.target.module], is_out
        total = (graph.get_out_channels if is_out else graph.get_in_channels)(dep.target.module)
        channels = self._roots.setdefault(root, np.arange(total))
        cells = self._cells(group)
        # In the numbers of the dense model, by which the history is followed.
        self._members.setdefault(root, {}).update((int(channels[i]), cells[i]) for i in cells)
        scores = []
        for i in group[0].idxs:
            units = {owner[index] for key, index in cells[i] if index in (owner := self._owners.get(key, {}))}
            scores.append(max((self.scores[unit] for unit in units), default=None))
        if self.unknown is None and all(score is None for score in scores):
            return None
        unknown = float("inf") if self.unknown is None else self.unknown
        values = [unknown if score is None else float(score) for score in scores]
        return torch.tensor(values, dtype=torch.float64, device=next(graph.model.parameters()).device)

    def _cells(self, group: Any) -> dict[int, set[tuple[tuple[str, int], int]]]:
        """Where each root channel stands: ((tensor, dim), index) in the dense model."""
        cells: dict[int, set[tuple[tuple[str, int], int]]] = defaultdict(set)
        tensors = dict([*self._graph.model.named_parameters(), *self._graph.model.named_buffers()])
        for item in group:
            for (name, dim, _), positions in places_of(self._graph, item)[0].items():
                extent, owner = tensors[name].shape[dim], self._owners.get((name, dim), {})
                known = self._alive.get((name, dim))
                fits = max(owner, default=-1) < extent if known is None else len(known) == extent
                if not fits:
                    hint = "the pruner's model must be the dense one, changed by the pruner alone"
                    got = f"{extent} on dimension {dim}"
                    raise GroupError("a layer has another width than what was learned", where=name, got=got, hint=hint)
                alive = self._alive.setdefault((name, dim), np.arange(extent))
                for here, root in zip(positions, item.root_idxs, strict=True):
                    if root is not None:
                        cells[root].update(((name, dim), int(alive[index])) for index in here)
        return cells

    def _catch_up(self) -> None:
        """Forget what the pruner has cut since the last call."""
        history = self._graph.pruning_history()
        for name, is_out, indices in history[self._done :]:
            channels = self._roots.get((name, is_out))
            if channels is None:
                raise GroupError("a group was pruned whose importance was never asked for", where=name)
            gone = [cell for i in indices for cell in self._members[name, is_out][int(channels[i])]]
            self._roots[name, is_out] = np.delete(channels, indices)
            for key in {key for key, _ in gone}:
                alive = self._alive[key]
                self._alive[key] = alive[~np.isin(alive, [index for other, index in gone if other == key])]
        self._done = len(history)
