"""The settings of an encoder as transformers' config.json says them: the names of each, and what has to hold."""

from collections.abc import Mapping
from typing import Any

MODEL_TYPES = {"hubert": "hubert", "wav2vec2": "wav2vec2", "wavlm": "wavlm"}
_SAME = {
    "extractor_conv_bias": "conv_bias",
    "encoder_embed_dim": "hidden_size",
    "encoder_projection_dropout": "feat_proj_dropout",
    "encoder_pos_conv_kernel": "num_conv_pos_embeddings",
    "encoder_pos_conv_groups": "num_conv_pos_embedding_groups",
    "encoder_num_layers": "num_hidden_layers",
    "encoder_num_heads": "num_attention_heads",
    "encoder_attention_dropout": "attention_dropout",
    "encoder_ff_interm_features": "intermediate_size",
    "encoder_ff_interm_dropout": "activation_dropout",
    "encoder_dropout": "hidden_dropout",
    "encoder_layer_norm_first": "do_stable_layer_norm",
    "encoder_layer_drop": "layerdrop",
}
_POSITIONS = {"encoder_num_buckets": "num_buckets", "encoder_max_distance": "max_bucket_distance"}
"""Ours by theirs."""
SAID = {**_SAME, **_POSITIONS, "extractor_conv_layer_config": "conv_dim", "extractor_mode": "feat_extract_norm"}
PRUNED = {"encoder_remaining_heads": "remaining_heads", "encoder_ff_interm_features": "intermediate_sizes"}
"""The same in the table of a pruned network."""
DEFAULTS: Mapping[str, Any] = {
    "conv_bias": False,
    "conv_dim": [512] * 7,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "feat_extract_norm": "group",
    "hidden_size": 768,
    "feat_proj_dropout": 0.0,
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "attention_dropout": 0.1,
    "intermediate_size": 3072,
    "activation_dropout": 0.1,
    "hidden_dropout": 0.1,
    "do_stable_layer_norm": False,
    "layerdrop": 0.1,
}
"""transformers' own, which config.json leaves out."""
WAVLM_DEFAULTS: Mapping[str, Any] = {"num_buckets": 320, "max_bucket_distance": 800}
ONLY = {
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "layer_norm_eps": 1e-5,
    "conv_pos_batch_norm": False,
    "feat_proj_layer_norm": True,
    "adapter_attn_dim": None,
}
"""Settings with one value that these encoders can have."""


def from_config(values: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Our settings of an encoder.

    Args:
        values: Those of config.json, with defaults.
        kind: Its `model_type`.

    Raises:
        ValueError: The lists of its convolutions differ in length.
    """
    shapes = [values[key] for key in ("conv_dim", "conv_kernel", "conv_stride")]
    if len({len(shape) for shape in shapes}) != 1:
        raise ValueError(f"conv_dim, conv_kernel and conv_stride differ in length: {[len(shape) for shape in shapes]}")
    pruned = values.get("l0prune") or {}
    return {
        **{ours: values[theirs] for ours, theirs in names_for(kind).items()},
        "extractor_mode": f"{values['feat_extract_norm']}_norm",
        "extractor_conv_layer_config": list(zip(*shapes, strict=True)),
        "aux_num_out": None,
        "family": kind,
        "extractor_channel_scale": bool(pruned.get("channel_scale", False)),
        **{ours: pruned[theirs] for ours, theirs in PRUNED.items() if theirs in pruned},
    }


def names_for(kind: str) -> dict[str, str]:
    """Their keys by ours, for a family."""
    return {**_SAME, **(_POSITIONS if kind == "wavlm" else {})}
