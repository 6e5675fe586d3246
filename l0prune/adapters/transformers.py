"""Pruning in transformers' Trainer: a callback."""

from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import TrainerControl, TrainerState
from transformers.training_args import TrainingArguments

from l0prune.adapters.driving import Driver
from l0prune.errors import ConfigError
from l0prune.pruner import L0Pruner


class PruningCallback(TrainerCallback):
    """Prunes the model of a `Trainer` while it trains.

        pruner = l0prune.wrap(model, example_inputs, target_sparsity=0.5, total_steps=1000)
        trainer = Trainer(model, args, train_dataset=..., callbacks=[PruningCallback(pruner)])
        trainer.train()
        smaller = pruner.finalize()

    Gates, controller and step count are part of the model, so that the trainer's checkpoints hold them, and
    `resume_from_checkpoint` goes on where the run was. The penalty of controllers that have one is added to the
    gradients before each step of the optimizer, which must be made of `pruner.parameter_groups(...)` then.

    Args:
        pruner: What `wrap` returned for the trainer's model.
    """

    def __init__(self, pruner: L0Pruner) -> None:
        self._driver = Driver(pruner)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check that the trainer trains what the pruner has wrapped."""
        self._driver.bind(control, kwargs["model"])
        optimizer = kwargs.get("optimizer")
        self._driver.check([] if optimizer is None else [getattr(optimizer, "optimizer", optimizer)], state.max_steps)
        if args.fp16 and not args.max_grad_norm and self._driver.pruner.penalty().requires_grad:
            hint = "use bf16, or set max_grad_norm, with which gradients are brought back to scale first"
            raise ConfigError("gradients in float16 stay scaled, and the penalty's are not", got="fp16=True", hint=hint)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Add the penalty."""
        self._driver.penalise()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move the gates, while the gradients are there."""
        self._driver.pruner.step()

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Put the expected sparsity beside what is logged."""
        if state.log_history:
            state.log_history[-1]["sparsity"] = self._driver.pruner.sparsity.expected
