"""Units of the method's own groups removed at once, by an importance of torch-pruning's or by chance.

Legend: N units of all groups, C channels that a group's units stand for (a head has several).
"""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch_pruning
from l0prune_speech.encoder import SpeechEncoder
from torch import nn

from l0bench.students.beginnings import Beginning, student_of
from l0prune import ConfigError, PruneGroup, Role, RunConfig, Task, apply_plan, parameter_size
from l0prune.removal import make_plan
from l0prune.size import kept_indices, select
from l0prune.support import model_shapes

_BATCHES = 16
"""Over which gradients are summed for the Taylor expansion."""
_ROUNDING = 1e-3
"""A loss below this is that of two ways to compute the same: its gradient is noise."""


def by_magnitude(task: Task, _config: RunConfig, budget: int) -> Beginning:
    """What has the largest weights stays."""
    return _cut(task, magnitudes(student_of(task), task.groups), budget)


def by_taylor(task: Task, config: RunConfig, budget: int) -> Beginning:
    """What changes the loss most, to first order, stays."""
    return _cut(task, taylor_terms(task, config), budget)


def by_chance(task: Task, config: RunConfig, budget: int) -> Beginning:
    """Random units stay."""
    units = sum(group.units for group in task.groups)
    return _cut(task, np.random.default_rng(config.seed).random(units), budget)


def _cut(task: Task, scores: np.ndarray, budget: int) -> Beginning:
    """Keep the units of the highest scores (N,) that fit, by the project's own selection and removal."""
    student, groups = student_of(task), task.groups
    kept = select(scores, groups, parameter_size(student, groups), budget)
    cut = apply_plan(student, make_plan(groups, kept_indices(kept, groups), model_shapes(student)))
    assert isinstance(cut, SpeechEncoder)
    return Beginning(student=cut)


def magnitudes(encoder: nn.Module, groups: Sequence[PruneGroup]) -> np.ndarray:
    """torch-pruning's group magnitude of each unit, (N,); its mean over each group is 1."""
    return _importances(encoder, groups, torch_pruning.importance.GroupMagnitudeImportance())


def taylor_terms(task: Task, config: RunConfig) -> np.ndarray:
    """torch-pruning's group Taylor importance of each unit, (N,), summed over the first batches.

    A copy of its teacher has no loss and no gradient; in training mode it has, for dropout acts.

    Raises:
        ConfigError: The student has no dropout.
    """
    objective = task.objective.train()
    torch.manual_seed(config.seed)
    batches, loss = task.batches(0), 0.0
    for batch in islice(batches, _BATCHES):
        total = objective(batch).total
        total.backward()
        loss += total.item() / _BATCHES
    del batches
    if loss < _ROUNDING:
        hint = "set speech.dropout to true"
        raise ConfigError("a copy of the teacher has no loss to expand", where="taylor", got=loss, hint=hint)
    terms = _importances(objective.student, task.groups, torch_pruning.importance.GroupTaylorImportance())
    objective.zero_grad(set_to_none=True)
    return terms


def _importances(
    model: nn.Module, groups: Sequence[PruneGroup], importance: torch_pruning.importance.Importance
) -> np.ndarray:
    return np.concatenate([_importance(model, group, importance) for group in groups])


def _importance(model: nn.Module, group: PruneGroup, importance: torch_pruning.importance.Importance) -> np.ndarray:
    """Of each unit of a group: the mean over its channels, as torch-pruning has it for heads."""
    scores: torch.Tensor = importance(_as_torch_pruning(model, group))
    return scores.view(group.units, -1).mean(1).double().cpu().numpy()


def _as_torch_pruning(model: nn.Module, group: PruneGroup) -> torch_pruning.dependency.Group:
    """A group in torch-pruning's form: for each weight its channels, and which of the C channels each follows."""
    made = torch_pruning.dependency.Group()
    for place in group.places:
        path, _, name = place.tensor.rpartition(".")
        module = model.get_submodule(path)
        handler = _handler(module, place.role) if name == "weight" else None
        if handler is not None:
            node = torch_pruning.dependency.Node(module, None, path)
            channels = place.index.ravel().tolist()
            made.add_dep(torch_pruning.Dependency(handler, handler, node, node), channels)
            made[len(made) - 1].root_idxs = list(range(len(channels)))
    return made


def _handler(module: nn.Module, role: Role) -> Callable[..., Any] | None:
    """How torch-pruning calls what a group does to a layer; None for what its importances pass over."""
    reads = role is Role.CONSUMES
    match module:
        case nn.Linear():
            return torch_pruning.prune_linear_in_channels if reads else torch_pruning.prune_linear_out_channels
        case nn.Conv1d():
            return torch_pruning.prune_conv_in_channels if reads else torch_pruning.prune_conv_out_channels
        case nn.LayerNorm():
            return torch_pruning.prune_layernorm_out_channels
    return None
