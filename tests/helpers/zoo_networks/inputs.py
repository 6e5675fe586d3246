"""Inputs of the zoo's networks: those that they are proved on, and others of another batch or length."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

Inputs = tuple | Mapping[str, Any]


class Network(NamedTuple):
    """A network of the zoo."""

    make: Callable[[], nn.Module]
    inputs: Inputs
    depth: Literal["blocks", "branches"] | None = None


def noise(*shape: int) -> Tensor:
    """The same numbers for each shape."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


IMAGES = noise(2, 3, 64, 64)
CROPS = IMAGES[..., :56, :56]
WAVES = noise(2, 4000)
MELS = noise(2, 20, 60)
TOKENS = torch.randint(1, 100, (2, 16), generator=torch.Generator().manual_seed(0))
TEXT: dict[str, Any] = {"input_ids": TOKENS, "use_cache": False}
IDS: dict[str, Any] = {"input_ids": TOKENS}
BOTH: dict[str, Any] = {**TEXT, "decoder_input_ids": TOKENS[:, :9]}


def others(inputs: Inputs) -> Inputs:
    """Further inputs, of another batch; tokens and waves are of another length, too."""
    generator = torch.Generator().manual_seed(1)
    values = inputs.values() if isinstance(inputs, Mapping) else inputs
    # Lengths say how many there are in a batch.
    more = 0 if any(isinstance(value, Tensor) and value.ndim == 1 for value in values) else 1

    def other(value: Any) -> Any:
        if not isinstance(value, Tensor) or value.ndim == 1:
            return value
        batch, *shape = value.shape
        if len(shape) == 1:
            shape[0] += 2 if shape[0] < 100 else 400
        if value.is_floating_point():
            return torch.randn(batch + more, *shape, generator=generator)
        return torch.randint(1, int(value.max()) + 1, (batch + more, *shape), generator=generator)

    if isinstance(inputs, Mapping):
        return {name: other(value) for name, value in inputs.items()}
    return tuple(map(other, inputs))
