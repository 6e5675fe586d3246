"""What `wrap` leaves inside the caller's model: gates that draw themselves, multipliers, the number of steps made."""

from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from l0prune.errors import ConfigError
from l0prune.gates import Controller, GatedModel, Gates
from l0prune.support import DDP_IGNORES


class PrunerState(nn.Module):
    """What the model's `state_dict()` carries of the pruner: gates, controller, steps made."""

    steps: Tensor

    def __init__(self, gates: Gates, controller: Controller) -> None:
        super().__init__()
        self.gates, self.controller, self.step = gates, controller, 0
        # What is saved and copied; `step` spares reading it back from a GPU.
        self.register_buffer("steps", torch.tensor(0))
        self.bad = torch.zeros((), dtype=torch.float64, device=gates.log_alpha.device)
        """Steps, since the last look, that made gates or multipliers non-finite."""
        self.good = self.controlled_now()
        """What gates and multipliers go back to when a step makes them non-finite."""
        self.register_load_state_dict_post_hook(_read)

    def controlled(self) -> list[nn.Parameter]:
        """Locations of the gates, and multipliers."""
        return list(dict.fromkeys([self.gates.log_alpha, *self.controller.trained(self.gates)]))

    def controlled_now(self) -> list[Tensor]:
        """A copy of them."""
        return [tensor.detach().clone() for tensor in self.controlled()]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move with the model, but keep the dtype: half precision would swallow the steps of an optimizer."""

        def moved(tensor: Tensor) -> Tensor:
            new = fn(tensor)
            return new if new.dtype == tensor.dtype else tensor.to(new.device)

        return super()._apply(moved, recurse)

    def count(self) -> None:
        """Count a step, and let the controller follow it."""
        self.step += 1
        self.steps.fill_(self.step)
        self.controller.after_step(self.gates, self.step)
        self.gates.forget_sample()


def _read(state: PrunerState, _: object) -> None:
    state.step, state.good = int(state.steps), state.controlled_now()
    state.gates.settled = state.controller.settled_at(state.step)


class SelfDrawingModel(GatedModel):
    """A gated model whose own module is called, not this one, and carries all that a copy or a checkpoint needs."""

    def carry(self, state: PrunerState, total_steps: int | None) -> None:
        """Let the model draw gates when it is called, and hold the pruner's state.

        Args:
            state: Of the pruner.
            total_steps: Of the whole run; a saved state that has made more is refused. None for no end.
        """
        # Inside a parametrization, where no forward pass of the caller's iterates over children.
        self.first_gate.add_module("l0prune", state)
        self._draw = self.model.register_forward_pre_hook(_Draw(self.gates))
        # Of the whole model, so that nothing has been loaded yet where the state is refused.
        where = next(path for path, module in self.model.named_modules() if module is state)
        self._check = self.model.register_load_state_dict_pre_hook(_CheckSteps(f"{where}.steps", total_steps))
        # Every process computes the multipliers' gradient alike, and outside the forward pass that DDP watches.
        own = [p for p in state.controller.parameters()]
        ignored = [name for name, p in self.model.named_parameters() if any(p is other for other in own)]
        self._ignored_before = getattr(self.model, DDP_IGNORES, None)
        setattr(self.model, DDP_IGNORES, [*(self._ignored_before or []), *ignored])

    def detach(self) -> nn.Module:
        """As a gated model's; the model is what it was before."""
        self._draw.remove()
        self._check.remove()
        if self._ignored_before is None:
            delattr(self.model, DDP_IGNORES)
        else:
            setattr(self.model, DDP_IGNORES, self._ignored_before)
        return super().detach()


class _Draw:
    """Forward pre-hook that lets gates be drawn in training mode. An object, so that a copy of the model has one."""

    def __init__(self, gates: Gates) -> None:
        self.gates = gates

    def __call__(self, module: nn.Module, args: Any) -> None:
        if module.training:
            self.gates.draw()
        else:
            # Once, before the forward pass: torch.compile cannot look into it.
            self.gates.decide()


class _CheckSteps:
    """Hook before a state is loaded that refuses one that is longer than the run. An object, as the other one.

    Args:
        key: Of the steps made, in the model's state.
        total_steps: Of the whole run; None for no end.
    """

    def __init__(self, key: str, total_steps: int | None) -> None:
        self.key, self.total_steps = key, total_steps

    def __call__(self, module: nn.Module, state: Mapping[str, Any], prefix: str, *_: object) -> None:
        made = state.get(f"{prefix}{self.key}")
        if made is not None and self.total_steps is not None and int(made) > self.total_steps:
            raise ConfigError(
                "total_steps is shorter than what was run",
                where=f"the state to load has made {int(made)} steps",
                got=self.total_steps,
                expected=f"{int(made)} or more",
                hint="wrap the model with the total_steps of the run that the state was saved in",
            )
