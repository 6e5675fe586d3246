"""Example inputs: what a model is run on wherever it is looked at."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from l0prune.errors import DataError
from l0prune.support import tree_map

Observe = Callable[[nn.Module], Any]
"""Runs a model on example inputs and returns its outputs: tensors in any nesting."""


Location = tuple[torch.device, torch.dtype]


@dataclass(frozen=True)
class Example:
    """Example inputs, how a model is run on them, and what of its outputs matters. Called with a model, it runs it."""

    inputs: Any
    """A tensor; a tuple or list of positional arguments; or a mapping of keyword arguments."""
    forward_fn: Callable[[nn.Module, Any], Any] | None = None
    """Called with the model and the inputs instead of the model."""
    output_transform: Callable[[Any], Any] | None = None
    """Picks what matters from the outputs."""

    def checked(self, model: nn.Module) -> "Example":
        """The same, once it is known to be where a model is.

        Raises:
            DataError: An input lies on a device where the model has no parameter, or the model has no values.
        """
        devices = {str(parameter.device) for parameter in model.parameters()}
        if "meta" in devices:
            hint = "give it values first: model.to_empty(device=...), and load its weights"
            raise DataError("the model is on the meta device, where parameters have no values", hint=hint)

        def check(leaf: Any) -> Any:
            if isinstance(leaf, Tensor) and devices and str(leaf.device) not in devices:
                raise DataError(
                    "example inputs are on another device than the model",
                    got=leaf.device,
                    expected=", ".join(sorted(devices)),
                    hint="move one to the other with .to()",
                )
            return leaf

        tree_map(check, self.inputs)
        return self

    def moved(self, before: Location | None, now: Location | None) -> "Example":
        """The same for a model that has moved: inputs of its device or dtype go along."""
        if before is None or now is None or before == now:
            return self

        def move(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            device = now[0] if leaf.device == before[0] else leaf.device
            return leaf.to(device, now[1] if leaf.dtype == before[1] else leaf.dtype)

        return replace(self, inputs=tree_map(move, self.inputs))

    def __call__(self, model: nn.Module) -> Any:
        """A model's outputs."""
        # A proof on a half-precision model runs in float32, and its inputs with it.
        half = any(parameter.dtype in (torch.float16, torch.bfloat16) for parameter in model.parameters())
        inputs = tree_map(_copied if half else _widened, self.inputs)
        if self.forward_fn is not None:
            outputs = self.forward_fn(model, inputs)
        elif isinstance(inputs, Mapping):
            outputs = model(**inputs)
        elif isinstance(inputs, tuple | list):
            outputs = model(*inputs)
        else:
            outputs = model(inputs)
        return outputs if self.output_transform is None else self.output_transform(outputs)


def place_of(weights: Iterable[Tensor]) -> Location | None:
    """Device and dtype of the first weight that is of real numbers."""
    return next(((weight.device, weight.dtype) for weight in weights if weight.is_floating_point()), None)


def _copied(leaf: Any) -> Any:
    """A tensor that the forward pass may change in place: the next one gets the example as it was."""
    return leaf.clone() if isinstance(leaf, Tensor) else leaf


def _widened(leaf: Any) -> Any:
    half = isinstance(leaf, Tensor) and leaf.dtype in (torch.float16, torch.bfloat16)
    return leaf.float() if half else _copied(leaf)
