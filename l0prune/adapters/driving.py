"""What every adapter of a trainer does: penalty into the gradients, a step of the gates, and checks before training."""

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from l0prune.errors import ConfigError
from l0prune.pruner import L0Pruner


class Driver:
    """Drives a pruner from a trainer's hooks.

    Args:
        pruner: What `wrap` returned.
    """

    def __init__(self, pruner: L0Pruner) -> None:
        if not isinstance(pruner, L0Pruner):
            expected = "what l0prune.wrap returned"
            raise ConfigError("not a pruner", got=type(pruner).__name__, expected=expected)
        self.pruner = pruner
        self._trainer: Any = None

    def bind(self, trainer: Any, model: nn.Module) -> None:
        """Belong to one trainer, whose model holds the pruner's.

        Raises:
            ConfigError: It belongs to another one already, or trains another model.
        """
        if self._trainer is not None and self._trainer is not trainer:
            hint = "make a callback, and a pruner, for each"
            raise ConfigError("a callback is used with two trainers", hint=hint)
        if all(part is not self.pruner.model for part in model.modules()):
            hint = "wrap the model that you give to the trainer"
            raise ConfigError("the trainer has another model than the pruner", where=type(model).__name__, hint=hint)
        self._trainer = trainer

    def check(self, optimizers: Iterable[Optimizer], steps: int | None) -> None:
        """Check, before the first step, that training can close gates.

        Args:
            optimizers: All that train the model.
            steps: Optimizer steps of the whole run; None where the trainer does not know.

        Raises:
            ConfigError: A controller whose gates an optimizer moves has them in none, or at the rate of the weights.
        """
        wanted = self.pruner.parameter_groups()[1:]
        rates = {
            # A schedule that warms up has set another rate by now.
            id(parameter): group.get("initial_lr", group["lr"])
            for optimizer in optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        for group in wanted:
            got = rates.get(id(group["params"][0]))
            if got is None or got < group["lr"] / 10:
                hint = "make the optimizer yourself: torch.optim.AdamW(pruner.parameter_groups(lr=...))"
                what = "the optimizer trains gates at another rate than their controller asks for"
                raise ConfigError(what, got=got or "not at all", expected=group["lr"], hint=hint)
        known = self.pruner.total_steps
        if steps is not None and steps > 0 and known is not None and known != steps:
            warnings.warn(
                f"the trainer makes {steps} steps and total_steps of the pruner is {known}: gates follow the latter",
                stacklevel=2,
            )

    def penalise(self) -> None:
        """Add the gradient of the penalty: once an optimizer step, whatever the accumulation of gradients is."""
        penalty = self.pruner.penalty()
        if penalty.requires_grad:
            with torch.enable_grad():
                penalty.backward()
