"""Example inputs: what a model is run on wherever it is looked at."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from l0prune.errors import DataError
from l0prune.support import tree_map

Observe = Callable[[nn.Module], Any]
"""Runs a model on example inputs and returns its outputs: tensors in any nesting."""


def observation(
    model: nn.Module,
    example_inputs: Any,
    forward_fn: Callable[[nn.Module, Any], Any] | None = None,
    output_transform: Callable[[Any], Any] | None = None,
) -> Observe:
    """The forward pass on example inputs, as a function of the model.

    Args:
        model: The model that the inputs are meant for.
        example_inputs: A tensor; a tuple or list of positional arguments; or a mapping of keyword arguments.
        forward_fn: Called with the model and `example_inputs` instead.
        output_transform: Picks what matters from the outputs.

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

    tree_map(check, example_inputs)

    return _Observation(example_inputs, forward_fn, output_transform)


@dataclass(frozen=True)
class _Observation:
    """What `observation` gives. An object, so that a pruner that holds it can be pickled."""

    example_inputs: Any
    forward_fn: Callable[[nn.Module, Any], Any] | None
    output_transform: Callable[[Any], Any] | None

    def __call__(self, model: nn.Module) -> Any:
        # A proof on a half-precision model runs in float32, and its inputs with it.
        half = any(parameter.dtype in (torch.float16, torch.bfloat16) for parameter in model.parameters())
        inputs = tree_map(_copied if half else _widened, self.example_inputs)
        if self.forward_fn is not None:
            outputs = self.forward_fn(model, inputs)
        elif isinstance(inputs, Mapping):
            outputs = model(**inputs)
        elif isinstance(inputs, tuple | list):
            outputs = model(*inputs)
        else:
            outputs = model(inputs)
        return outputs if self.output_transform is None else self.output_transform(outputs)


def _copied(leaf: Any) -> Any:
    """A tensor that the forward pass may change in place: the next one gets the example as it was."""
    return leaf.clone() if isinstance(leaf, Tensor) else leaf


def _widened(leaf: Any) -> Any:
    half = isinstance(leaf, Tensor) and leaf.dtype in (torch.float16, torch.bfloat16)
    return leaf.float() if half else _copied(leaf)
