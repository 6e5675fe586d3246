"""Recurrent layers: one hidden size for all their weights, which they keep references to."""

from typing import Any

from torch import nn

from l0prune.layers.registry import Layer, register
from l0prune.support import flat_weight_names, own_parameters, set_flat_weights


def _units(module: nn.RNNBase) -> dict[tuple[str, int], str]:
    projected = {(f"weight_hr_l{n}", 0): "hidden" for n in range(module.num_layers if module.proj_size else 0)}
    return {(f"weight_hh_l{n}", 0): "hidden" for n in range(module.num_layers)} | projected


def _sizes(module: Any) -> dict[str, int]:
    sizes = {"input_size": module.weight_ih_l0.shape[1]}
    if module.proj_size:
        # What is fed back is the projection, not the hidden state.
        return sizes | {"proj_size": module.weight_hr_l0.shape[0], "hidden_size": module.weight_hr_l0.shape[1]}
    return sizes | {"hidden_size": module.weight_hh_l0.shape[1]}


def _use_gated_weights(module: nn.RNNBase, args: object) -> None:
    """A recurrent module keeps references to its weights: they must be to the gated ones while it runs."""
    set_flat_weights(module, [getattr(module, name) for name in flat_weight_names(module)])


def _forget_gated_weights(module: nn.RNNBase, *_: Any) -> None:
    """Put its own weights back once it has run."""
    originals = {name: module.parametrizations[name].original for name in getattr(module, "parametrizations", {})}  # type: ignore[union-attr]
    own = own_parameters(module)
    set_flat_weights(module, [originals.get(name, own.get(name)) for name in flat_weight_names(module)])


register(
    nn.RNNBase,
    Layer(
        units=_units,
        sizes=_sizes,
        before=_use_gated_weights,
        after=_forget_gated_weights,
    ),
)
register(
    nn.RNNCellBase,
    Layer(
        units={("weight_hh", 0): "hidden"},
        sizes={"hidden_size": ("weight_hh", 1), "input_size": ("weight_ih", 1)},
    ),
)
