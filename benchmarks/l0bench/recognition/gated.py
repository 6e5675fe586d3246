"""`l0prune.wrap` around the encoder, in a training loop of one's own."""

import warnings
from typing import Any

import torch
from torch import nn

import l0prune
from l0bench.learning_rate import rate_at, set_rate
from l0bench.recognition.problem import BATCH, Problem
from l0bench.recognition.training import checked, scale_down, train
from l0bench.wrap_settings import wrap_settings


def learn(problem: Problem) -> tuple[nn.Module, dict[str, Any]]:
    """Gates for some of the steps, the cut, and recovery for the others, under one schedule of the learning rate.

    Args:
        problem: Its trial's settings are those of `wrap_settings`.

    Returns:
        The trained encoder, and what was noted at the cut.
    """
    trial, encoder = problem.trial, problem.encoder()
    gated_steps, given = wrap_settings(trial.steps, trial.settings)
    if given.get("start") is not None:
        given |= {"batches": problem.sets.labelled.in_turn(BATCH), "loss": problem.labelled_loss}
    pruner = l0prune.wrap(encoder, problem.example, target_sparsity=problem.share, round_to=1, **given)
    optimizer = torch.optim.AdamW(pruner.parameter_groups(lr=trial.rate, weight_decay=0.01))
    deviations = []
    encoder.train()
    for step in range(gated_steps):
        set_rate(optimizer.param_groups[:1], rate_at(step, trial.steps, trial.rate))
        loss = problem.next_loss(encoder).total + pruner.penalty()
        checked(loss, step)
        loss.backward()
        scale_down(optimizer.param_groups[0]["params"], trial.max_norm)
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()
        now = pruner.sparsity
        deviations.append(abs(now.expected - now.target))
    before = problem.mean_loss(encoder)
    expected = pruner.sparsity.expected
    with warnings.catch_warnings():
        # That the gates are behind stands in the row.
        warnings.simplefilter("ignore", UserWarning)
        pruned = pruner.finalize()
    facts = {
        "gated_steps": gated_steps,
        "expected_sparsity": expected,
        "largest_deviation": max(deviations[10:], default=None),
        "loss_before_cut": before,
        "loss_after_cut": problem.mean_loss(pruned),
        "nats_after_cut": problem.validation_nats(pruned),
    }
    return pruned, facts | {"loss_trained": train(pruned, problem, done=gated_steps)}
