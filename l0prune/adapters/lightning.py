"""Pruning in Lightning's Trainer: a callback."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from l0prune.adapters.driving import Driver
from l0prune.errors import ConfigError
from l0prune.pruner import L0Pruner


class PruningCallback(Callback):
    """Prunes the model of a LightningModule, or the module itself, while it trains.

        pruner = l0prune.wrap(module.net, example_inputs, target_sparsity=0.5, total_steps=1000)
        Trainer(max_steps=1000, callbacks=[PruningCallback(pruner)]).fit(module, batches)
        smaller = pruner.finalize()

    Gates, controller and step count are part of the model, so that Lightning's checkpoints hold them. The penalty of
    controllers that have one is added to the gradients before each step of the optimizer.

    Args:
        pruner: What `wrap` returned for the module, or for a part of it.
    """

    def __init__(self, pruner: L0Pruner) -> None:
        self._driver, self._steps = Driver(pruner), 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that the trainer trains what the pruner has wrapped."""
        if not pl_module.automatic_optimization:
            hint = "call pruner.step() after the optimizer's, and add pruner.penalty() to the loss yourself"
            raise ConfigError("the module optimizes by hand", where=type(pl_module).__name__, hint=hint)
        self._driver.bind(trainer, pl_module)
        self._driver.check(trainer.optimizers, trainer.max_steps)
        self._steps = trainer.global_step

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Add the penalty, with the first optimizer alone."""
        if optimizer is trainer.optimizers[0]:
            self._driver.penalise()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Move the gates where the optimizer has made a step; its gradients are there until the next one."""
        if trainer.global_step > self._steps:
            self._steps = trainer.global_step
            self._driver.pruner.step()
