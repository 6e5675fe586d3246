"""Convolutions: plain, grouped, depthwise and transposed."""

from typing import Any

import numpy as np
from torch import Tensor

from l0prune.layers.registry import Layer, Stays, register, register_alike
from l0prune.support import Convolution

_FILTERS = (("weight", 0), ("parametrizations.weight.original1", 0))
"""Where the filters of a depthwise convolution stand: weight_norm keeps their direction as `original1`."""


def _is_depthwise(module: Any) -> bool:
    return 1 < module.groups == module.in_channels


def _units(module: Any) -> dict[tuple[str, int], str]:
    # (out, in / groups, ...) or, transposed, (in, out / groups, ...).
    return {("weight", 1 if module.transposed and not _is_depthwise(module) else 0): "conv"}


def _follow_channels(module: Any, stays: Stays) -> None:
    """Let a depthwise convolution have as many groups as channels that keep a filter.

    A grouped convolution down to one channel a group looks the same, but all of its groups keep some.
    """
    rows = next((stays[filters] for filters in _FILTERS if filters in stays), None)
    if rows is not None and _is_depthwise(module):
        total = module.in_channels if module.transposed else module.out_channels
        module.groups = module.in_channels = len(np.unique(rows // (total // module.groups)))


def _sizes(module: Any) -> dict[str, int]:
    rows, columns = module.weight.shape[:2]
    if module.transposed:
        return {"in_channels": rows, "out_channels": columns * module.groups}
    return {"in_channels": columns * module.groups, "out_channels": rows}


def _looks_like_convolution(module: Any) -> bool:
    """Whether a module of another class keeps a weight (out, in / groups, ...) and these numbers, as torch's do."""
    weight, sizes = getattr(module, "weight", None), [getattr(module, n, None) for n in ("out_channels", "in_channels")]
    groups = getattr(module, "groups", None)
    if not isinstance(weight, Tensor) or weight.ndim < 3 or type(groups) is not int:
        return False
    return sizes == [weight.shape[0], weight.shape[1] * groups]


def _sizes_alike(module: Any) -> dict[str, int]:
    rows, columns = module.weight.shape[:2]
    return {"in_channels": columns * module.groups, "out_channels": rows}


register_alike(_looks_like_convolution, Layer(units={("weight", 0): "conv"}, sizes=_sizes_alike))
register(Convolution, Layer(units=_units, sizes=_sizes, cut=_follow_channels))
