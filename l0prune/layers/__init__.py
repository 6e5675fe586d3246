"""Layers whose channels can be gated and cut, one file a family."""

from l0prune.layers.attention import SlimMultiheadAttention
from l0prune.layers.norms import GatedNorm, is_rms_norm
from l0prune.layers.open_norms import OpenChannels
from l0prune.layers.recurrent import forget_gated_weights, use_gated_weights
from l0prune.layers.registry import counting_attributes, layer_units

__all__ = [
    "GatedNorm",
    "OpenChannels",
    "SlimMultiheadAttention",
    "counting_attributes",
    "forget_gated_weights",
    "is_rms_norm",
    "layer_units",
    "use_gated_weights",
]
