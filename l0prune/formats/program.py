"""Programs without Python classes: what ONNX, torch.export and TorchScript hold of a network."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from l0prune.formats.example import Example
from l0prune.support import output_tensors, tree_leaves


class Program(nn.Module):
    """A network whose outputs are its tensors one after the other, or the tensor itself where there is one.

    Args:
        module: The network, in evaluation mode.
        example: Its arguments, whose names the program takes over.
    """

    def __init__(self, module: nn.Module, example: Example) -> None:
        super().__init__()
        self.module = module

        def forward(*args: Any, **kwargs: Any) -> Tensor | tuple[Tensor, ...]:
            return as_program(module(*args, **kwargs))

        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD if example.positional else inspect.Parameter.KEYWORD_ONLY
        parameters = [inspect.Parameter(name, kind) for name in example.named]
        # torch's exporters read the names of arguments there.
        forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        self.forward = forward


class PositionalProgram(nn.Module):
    """A program whose arguments are tensors by position, as TorchScript takes them.

    Args:
        module: The network, in evaluation mode.
        example: Its arguments: those that are no tensors are constants of the program.
    """

    def __init__(self, module: nn.Module, example: Example) -> None:
        super().__init__()
        self.module, self.example = module, example

    def forward(self, *tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The tensors of the example, in order -> the network's tensors."""
        given = self.example.with_tensors(tensors)
        return as_program(self.module(*given.args, **given.kwargs))


def as_program(outputs: Any) -> Tensor | tuple[Tensor, ...]:
    """What a network gives, in the form of a program's outputs."""
    tensors = output_tensors(outputs)
    return tensors[0] if len(tensors) == 1 else tuple(tensors)


def dynamic_shapes(example: Example) -> dict[str, Any] | None:
    """The free dimensions, as torch's exporters take them for a `Program`."""
    return example.shapes() if example.free else None


def input_names(example: Example) -> list[str]:
    """The name of each tensor among the arguments; those that stand nested in an argument are numbered."""
    names = []
    for name, value in example.named.items():
        count = sum(isinstance(leaf, Tensor) for leaf in tree_leaves(value))
        names += [name] if isinstance(value, Tensor) else [f"{name}_{number}" for number in range(count)]
    return names


def output_names(module: nn.Module, example: Example) -> list[str]:
    """Names of the tensors that a network gives: its own, where it names them."""
    count = len(example.run(module))
    with torch.no_grad():
        outputs = module(*example.args, **example.kwargs)
    if isinstance(outputs, Mapping):
        own = [str(name) for name, value in outputs.items() if isinstance(value, Tensor)]
        if len(own) == count:
            return own
    return ["output"] if count == 1 else [f"output_{number}" for number in range(count)]


def as_list(outputs: Any) -> list[Tensor]:
    """What a `Program` gives, as a list."""
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)
