"""What `wrap` leaves inside the caller's model: gates that draw themselves, and what drives them."""

from collections.abc import MutableMapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from l0prune.distributed import average, world
from l0prune.errors import ConfigError
from l0prune.gates import Controller, GatedModel, Gates
from l0prune.removal import RemovalPlan
from l0prune.support import DDP_IGNORES, sharded_parts

_NAME = "l0prune"
"""Of the controller in the model, and so in its `state_dict()`."""


class SelfDrawingModel(GatedModel):
    """A gated model whose own module is called, not this one, and carries all that a copy or a checkpoint needs."""

    def carry(self, controller: Controller, total_steps: int | None) -> None:
        """Let the model draw gates when it is called, and hold what drives them.

        Args:
            controller: Of the gates.
            total_steps: Of the whole run; a saved state that has made more is refused. None for no end.
        """
        # A tuple hides it from `modules()`: it stands in the model.
        self._controller = (controller,)
        self._draw = self.model.register_forward_pre_hook(_Draw(self.gates))
        # Of the whole model, so that nothing has been loaded yet where the state is refused, or asks for a cut.
        self._load = self.model.register_load_state_dict_pre_hook(_BeforeLoading(controller, total_steps))
        self._ignored_before = getattr(self.model, DDP_IGNORES, None)
        self._hold()

    def _hold(self) -> None:
        (controller,) = self._controller
        # Inside a parametrization, where no forward pass of the caller's iterates over children.
        self.first_gate.add_module(_NAME, controller)
        # Every process computes the multipliers' gradient alike, and outside the forward pass that DDP watches.
        own = {id(parameter) for parameter in controller.controller.parameters()}
        ignored = [name for name, parameter in self.model.named_parameters() if id(parameter) in own]
        setattr(self.model, DDP_IGNORES, [*(self._ignored_before or []), *ignored])

    def shrink(self, kept: np.ndarray) -> tuple[RemovalPlan, dict[str, tuple[nn.Parameter, nn.Parameter | None]]]:
        """As a gated model's; what drives the gates goes on."""
        found = super().shrink(kept)
        self._hold()
        return found

    def detach(self) -> nn.Module:
        """As a gated model's; the model is what it was before."""
        self._draw.remove()
        self._load.remove()
        if self._ignored_before is None:
            # A copy of some models, torch.fx's among them, has lost it.
            vars(self.model).pop(DDP_IGNORES, None)
        else:
            setattr(self.model, DDP_IGNORES, self._ignored_before)
        return super().detach()


class _Draw:
    """Forward pre-hook that lets gates be drawn in training mode. An object, so that a copy of the model has one."""

    def __init__(self, gates: Gates) -> None:
        self.gates = gates
        self._averaged: nn.Parameter | None = None

    def __call__(self, module: nn.Module, args: Any) -> None:
        if module.training:
            if world().size > 1 and self._averaged is not self.gates.log_alpha and sharded_parts(module):
                # `fully_shard` leaves the gates alone, and so does it their gradient.
                self._averaged = self.gates.log_alpha
                self._averaged.register_post_accumulate_grad_hook(_average_gradient)
            self.gates.draw()


def _average_gradient(parameter: Tensor) -> None:
    if parameter.grad is not None:
        average([parameter.grad])


class _BeforeLoading:
    """Hook before a state is loaded: refuses one that is longer than the run, and cuts the model to its size.

    An object, as the other one.

    Args:
        controller: Of the gates.
        total_steps: Of the whole run; None for no end.
    """

    def __init__(self, controller: Controller, total_steps: int | None) -> None:
        self.controller, self.total_steps = controller, total_steps

    def __call__(self, module: nn.Module, state: MutableMapping[str, Any], prefix: str, *_: object) -> None:
        # Where in the model it stood depends on what had left by then.
        ending = f".{_NAME}.steps"
        found = next((key for key in state if key.startswith(prefix) and key.endswith(ending)), None)
        if found is None:
            return
        made = int(state[found])
        if self.total_steps is not None and made > self.total_steps:
            raise ConfigError(
                "total_steps is shorter than what was run",
                where=f"the state to load has made {made} steps",
                got=self.total_steps,
                expected=f"{made} or more",
                hint="wrap the model with the total_steps of the run that the state was saved in",
            )
        self.controller.fit(state, found.removesuffix("steps"))
