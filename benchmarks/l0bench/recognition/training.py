"""Training of an encoder that has its size: what every one-shot method does after the cut, and `wrap` at last."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from l0bench.learning_rate import rate_at, set_rate
from l0bench.recognition.problem import Problem
from l0prune import TrainingError


def train(encoder: nn.Module, problem: Problem, *, done: int = 0) -> float:
    """AdamW, with the rate of `rate_at` over all of the trial's steps.

    Args:
        encoder: Trained in place.
        problem: Objective and batches.
        done: Steps that were made before the cut.

    Returns:
        The mean loss of the last tenth of the steps.
    """
    trial = problem.trial
    weights = [p for p in encoder.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=trial.rate, weight_decay=0.01)
    losses = []
    encoder.train()
    for step in range(done, trial.steps):
        set_rate(optimizer.param_groups, rate_at(step, trial.steps, trial.rate))
        loss = problem.next_loss(encoder).total
        losses.append(checked(loss, step))
        loss.backward()
        scale_down(weights, trial.max_norm)
        optimizer.step()
        optimizer.zero_grad()
    last = losses[-max(1, len(losses) // 10) :]
    return sum(last) / len(last) if last else float("nan")


def scale_down(weights: Iterable[Tensor], max_norm: float | None) -> None:
    """Their gradients, to a norm; None leaves them."""
    if max_norm is not None:
        nn.utils.clip_grad_norm_(weights, max_norm)


def checked(loss: Tensor, step: int) -> float:
    """The loss as a number.

    Raises:
        TrainingError: It is not finite.
    """
    value = float(loss.detach())
    if not math.isfinite(value):
        raise TrainingError("the loss is not finite", where=f"step {step}", got=value, hint="lower the learning rate")
    return value
