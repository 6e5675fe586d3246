"""Recurrent layers whose weights are computed before each forward pass."""

from torch import nn

from l0prune.support import flat_weight_names, own_parameters, set_flat_weights


def use_gated_weights(module: nn.RNNBase, args: object) -> None:
    """A recurrent module keeps references to its weights: they must be to the gated ones while it runs."""
    set_flat_weights(module, [getattr(module, name) for name in flat_weight_names(module)])


def forget_gated_weights(module: nn.RNNBase, *_: object) -> None:
    """Put its own weights back once it has run."""
    originals = {name: module.parametrizations[name].original for name in getattr(module, "parametrizations", {})}  # type: ignore[union-attr]
    own = own_parameters(module)
    set_flat_weights(module, [originals.get(name, own.get(name)) for name in flat_weight_names(module)])
