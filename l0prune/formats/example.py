"""Example inputs as programs take them: named, with dimensions whose sizes stay free."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from l0prune.errors import ConfigError
from l0prune.support import output_tensors, tree_leaves, tree_map

Free = Mapping[str, Sequence[int]]
"""By the name of an argument: its dimensions whose sizes stay free."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """The arguments of a forward pass."""

    named: Mapping[str, Any]
    """By the names that the forward pass gives them, in order."""
    positional: bool
    """Whether the caller gave them by position."""
    free: Free = field(default_factory=dict)
    calibration: "Sequence[Example]" = ()
    """What scales of activations in eight bits are found on."""

    @property
    def args(self) -> tuple[Any, ...]:
        """What is given by position."""
        return tuple(self.named.values()) if self.positional else ()

    @property
    def kwargs(self) -> dict[str, Any]:
        """What is given by name."""
        return {} if self.positional else dict(self.named)

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors among the arguments, in order."""
        return [leaf for leaf in tree_leaves(dict(self.named)) if isinstance(leaf, Tensor)]

    def with_tensors(self, tensors: Sequence[Tensor]) -> "Example":
        """The same arguments with other tensors."""
        left = iter(tensors)
        named = tree_map(lambda leaf: next(left) if isinstance(leaf, Tensor) else leaf, dict(self.named))
        return replace(self, named=named)

    @property
    def batch(self) -> Free:
        """The first dimension of all tensors, where they have one size in common; else nothing."""
        sizes = {leaf.shape[0] if leaf.ndim else None for leaf in self.tensors}
        if len(sizes) != 1 or None in sizes:
            return {}
        return {name: (0,) for name, value in self.named.items() if any(map(_is_tensor, tree_leaves(value)))}

    def shapes(self) -> dict[str, Any]:
        """`named`, with the free dimensions of each tensor in its place, as torch.export takes them."""

        def spec(name: str, value: Any) -> Any:
            dims = self.free.get(name, ())
            free = {dim: torch.export.Dim.DYNAMIC for dim in dims}
            return tree_map(lambda leaf: dict(free) if isinstance(leaf, Tensor) and free else None, value)

        return {name: spec(name, value) for name, value in self.named.items()}

    def widened(self) -> "Example":
        """The example with at least two along each free dimension: a program would take a single one for always one."""
        return self._resized(lambda size: max(size, 2))

    def another(self) -> "Example":
        """The example in other sizes along its free dimensions: one sample more, other dimensions one shorter."""
        return self._resized(lambda size: size + 1, lambda size: size - 1 if size > 2 else size + 1)

    def _resized(self, first: Any, others: Any = None) -> "Example":
        def resized(name: str, value: Any) -> Any:
            def leaf_of(leaf: Any) -> Any:
                if not isinstance(leaf, Tensor):
                    return leaf
                for dim in self.free.get(name, ()):
                    size = leaf.shape[dim]
                    wanted = (first if dim == 0 else others or first)(size)
                    # What is there is repeated: other values might be out of range.
                    leaf = leaf.index_select(dim, torch.arange(wanted) % size)
                return leaf

            return tree_map(leaf_of, value)

        return replace(self, named={name: resized(name, value) for name, value in self.named.items()})

    def run(self, module: nn.Module) -> list[Tensor]:
        """The tensors that a network gives."""
        given = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, (self.args, self.kwargs))
        with torch.no_grad():
            return output_tensors(module(*given[0], **given[1]))


def example_of(module: nn.Module, inputs: Any, free: Free | None) -> Example:
    """Example inputs, on the CPU.

    Args:
        module: The network that they are for.
        inputs: A tensor; a tuple or list of positional arguments; or a mapping of keyword arguments.
        free: Dimensions whose sizes stay free; None for those of the batch.

    Raises:
        ConfigError: There is no tensor among them, or `free` names what is not there.
    """
    inputs = tree_map(lambda leaf: leaf.detach().cpu() if isinstance(leaf, Tensor) else leaf, inputs)
    if isinstance(inputs, Mapping):
        named = {str(name): value for name, value in inputs.items()}
    else:
        given = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
        named = dict(zip(_names(module, len(given)), given, strict=True))
    if not any(map(_is_tensor, tree_leaves(named))):
        got, hint = type(inputs).__name__, "give example_inputs: a tensor, a tuple of arguments or a mapping of them"
        raise ConfigError("no tensor in the example inputs", got=got, hint=hint)
    example = Example(named=named, positional=not isinstance(inputs, Mapping))
    if free is None:
        return replace(example, free=example.batch)
    for name, dims in free.items():
        tensors = [leaf for leaf in tree_leaves(named.get(name)) if isinstance(leaf, Tensor)]
        if not tensors or any(not 0 <= dim < min(leaf.ndim for leaf in tensors) for dim in dims):
            expected = ", ".join(f"{known} {tuple(v.shape)}" for known, v in named.items() if isinstance(v, Tensor))
            raise ConfigError("no such dimension to keep free", where=name, got=tuple(dims), expected=expected)
    return replace(example, free={name: tuple(dims) for name, dims in free.items()})


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, Tensor)


def _names(module: nn.Module, count: int) -> list[str]:
    """The names of the first positional arguments of a forward pass."""
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    known = [name for name, p in inspect.signature(module.forward).parameters.items() if p.kind in plain]
    return [*known[:count], *(f"input_{number}" for number in range(len(known), count))]
