"""Recurrent layers whose weights are computed before each forward pass."""

from torch import nn


def use_gated_weights(module: nn.RNNBase, args: object) -> None:
    """A recurrent module keeps references to its weights: they must be to the gated ones while it runs."""
    module._flat_weights = [getattr(module, name) for name in module._flat_weights_names]


def forget_gated_weights(module: nn.RNNBase, *_: object) -> None:
    """Put its own weights back once it has run."""
    originals = {name: module.parametrizations[name].original for name in getattr(module, "parametrizations", {})}  # type: ignore[union-attr]
    module._flat_weights = [
        originals.get(name, module.__dict__["_parameters"].get(name)) for name in module._flat_weights_names
    ]
