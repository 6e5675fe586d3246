"""`l0prune.wrap` around the encoder, in a training loop of one's own."""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

import l0prune
from l0prune import ControllerConfig, GateConfig
from l0prune.pruner import CONTROLLER
from recognition.problem import Problem
from recognition.training import checked, rate_at, set_rate, train

GATED_SHARE = 0.5
"""Of the steps, with gates; the others train the pruned encoder."""
WARMUP_SHARE = 2 / 3
"""Of the gated steps, over which the target rises."""


def learn(problem: Problem) -> tuple[nn.Module, dict[str, Any]]:
    """Gates for some of the steps, the cut, and recovery for the others, under one falling learning rate.

    Args:
        problem: Its trial's settings are `gated_share`, `warmup_share`, `controller.NAME` and `gates.NAME` for fields
            of the two configurations, and any other argument of `l0prune.wrap`.

    Returns:
        The trained encoder, and what was noted at the cut.
    """
    trial, encoder = problem.trial, problem.encoder()
    gated_steps, given = wrap_settings(trial.steps, trial.settings)
    pruner = l0prune.wrap(encoder, problem.example, target_sparsity=problem.share, **given)
    optimizer = torch.optim.AdamW(pruner.parameter_groups(lr=trial.rate, weight_decay=0.01))
    deviations = []
    encoder.train()
    for step in range(gated_steps):
        set_rate(optimizer.param_groups[:1], rate_at(step, trial.steps, trial.rate))
        loss = problem.next_loss(encoder).total + pruner.penalty()
        checked(loss, step)
        loss.backward()
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


def wrap_settings(steps: int, settings: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """How many steps have gates, and the arguments of `l0prune.wrap`."""
    given = dict(settings)
    gated_steps = max(1, round(steps * given.pop("gated_share", GATED_SHARE)))
    warmup = round(gated_steps * given.pop("warmup_share", WARMUP_SHARE))
    parts: dict[str, dict[str, Any]] = {"controller": {"warmup_steps": warmup}, "gates": {}}
    for name in [name for name in given if name.partition(".")[0] in parts and "." in name]:
        part, _, field = name.partition(".")
        parts[part][field] = given.pop(name)
    if "controller" not in given:
        given["controller"] = dataclasses.replace(CONTROLLER, **parts["controller"])
    if parts["gates"]:
        given["gates"] = GateConfig(**parts["gates"])
    assert isinstance(given["controller"], ControllerConfig | str)
    return gated_steps, given
