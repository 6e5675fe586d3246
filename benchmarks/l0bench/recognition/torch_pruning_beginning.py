"""The encoder cut by torch-pruning's own pruner, with its own groups, until the parameters meet the same budget."""

from typing import Any

import torch_pruning
from torch import nn

from l0bench.recognition.problem import Problem
from l0prune import TargetError
from l0prune.measuring import parameters

_ROUNDS = 400
"""Small ones, so that the budget is missed by little: the pruner counts channels, not parameters."""


def by_group_magnitude(problem: Problem) -> nn.Module:
    """Its GroupMagnitudeImportance."""
    return _pruned(problem, problem.encoder(), torch_pruning.importance.GroupMagnitudeImportance())


def by_group_taylor(problem: Problem) -> nn.Module:
    """Its GroupTaylorImportance, gradients of the recogniser's own loss summed over the labelled clips."""
    encoder = problem.encoder().train()
    for loss in problem.labelled_losses("task"):
        loss(encoder).backward()
    return _pruned(problem, encoder, torch_pruning.importance.GroupTaylorImportance())


def _pruned(problem: Problem, encoder: Any, importance: Any) -> nn.Module:
    attentions = [layer.self_attn for layer in encoder.layers]
    projections = [(attention.q_proj, attention.k_proj, attention.v_proj) for attention in attentions]
    # What writes into the residual stream keeps its width: the decoder reads it.
    writers = [encoder.conv2, *(m for layer in encoder.layers for m in (layer.self_attn.out_proj, layer.fc2))]
    heads = {q: attention.num_heads for attention, three in zip(attentions, projections, strict=True) for q in three}
    pruner = torch_pruning.pruner.BasePruner(
        encoder.eval(),
        problem.example,
        importance,
        global_pruning=True,
        pruning_ratio=0.99,
        max_pruning_ratio=0.97,
        iterative_steps=_ROUNDS,
        ignored_layers=writers,
        num_heads=heads,
        prune_num_heads=True,
        channel_groups={},
        customized_pruners={},
        root_module_types=[nn.Conv1d, nn.Linear],
    )
    while parameters(encoder) > problem.budget and pruner.current_step < _ROUNDS:
        pruner.step()
        for attention, (query, *_) in zip(attentions, projections, strict=True):
            attention.num_heads = pruner.num_heads[query]
            attention.head_dim = query.out_features // attention.num_heads
    if parameters(encoder) > problem.budget:
        raise TargetError("torch-pruning does not reach the budget", got=parameters(encoder), expected=problem.budget)
    encoder.zero_grad(set_to_none=True)
    return encoder
