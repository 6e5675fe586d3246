"""What is known of layers, one file a family: their units, what their sizes are called, how they are gated and cut.

`register` says it for a class of one's own.
"""

from l0prune.layers import convolution, recurrent  # noqa: F401 - they register their layers
from l0prune.layers.attention import adopt_attention
from l0prune.layers.experts import ALIGNED, are_experts, computes_one_by_one, tensors_of_experts
from l0prune.layers.linear import is_transposed
from l0prune.layers.norms import GatedNorm, is_rms_norm
from l0prune.layers.open_norms import OpenChannels, open_group_norm, open_norm
from l0prune.layers.registry import Layer, counting_attributes, layer_of, layer_units, register, same_forward
from l0prune.layers.slim_attention import SlimMultiheadAttention

__all__ = [
    "ALIGNED",
    "GatedNorm",
    "Layer",
    "OpenChannels",
    "SlimMultiheadAttention",
    "adopt_attention",
    "are_experts",
    "computes_one_by_one",
    "counting_attributes",
    "is_rms_norm",
    "is_transposed",
    "layer_of",
    "layer_units",
    "open_group_norm",
    "open_norm",
    "register",
    "same_forward",
    "tensors_of_experts",
]
