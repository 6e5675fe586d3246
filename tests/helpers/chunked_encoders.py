"""Small encoders of each layout, and the same that hear chunks."""

from typing import Any

import torch
from l0prune_speech.encoder import SpeechEncoder, build_encoder
from l0prune_speech.streaming import streaming_encoder

SHAPES = [(6, 10, 5), (7, 3, 2), (6, 3, 2), (5, 3, 2), (6, 3, 2), (6, 2, 2), (6, 2, 2)]
LARGE = {
    "extractor_mode": "layer_norm",
    "extractor_conv_bias": True,
    "encoder_layer_norm_first": True,
    "normalize_waveform": True,
}
RELATIVE = {"encoder_num_buckets": 32, "encoder_max_distance": 40, "family": "wavlm"}
PRUNED = {
    "encoder_remaining_heads": [[0, 2], [], [1, 2, 3]],
    "encoder_ff_interm_features": [5, 0, 3],
    "encoder_pos_conv_kernel": 7,
}
KINDS: dict[str, dict[str, Any]] = {
    "base": {},
    "large": LARGE,
    "wavlm": RELATIVE,
    "pruned wavlm-large": {**LARGE, **RELATIVE, **PRUNED},
}
BASE: dict[str, Any] = {
    "extractor_mode": "group_norm",
    "extractor_conv_layer_config": SHAPES,
    "extractor_conv_bias": False,
    "encoder_embed_dim": 16,
    "encoder_projection_dropout": 0.1,
    "encoder_pos_conv_kernel": 4,
    "encoder_pos_conv_groups": 2,
    "encoder_num_layers": 3,
    "encoder_num_heads": 4,
    "encoder_attention_dropout": 0.1,
    "encoder_ff_interm_features": 12,
    "encoder_ff_interm_dropout": 0.1,
    "encoder_dropout": 0.1,
    "encoder_layer_norm_first": False,
    "encoder_layer_drop": 0.05,
    "aux_num_out": None,
}
"""HuBERT Base's layout, small."""


def dense_encoder(kind: str, **changes: Any) -> SpeechEncoder:
    """One that hears whole clips: 20 ms frames, 3 layers of 4 heads."""
    torch.manual_seed(0)
    encoder = build_encoder({**BASE, **KINDS[kind], **changes}).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4 + 0.1)
    return encoder


def small_streaming(kind: str, chunk_ms: float = 60, left_ms: float = 100, right_ms: float = 20) -> SpeechEncoder:
    """One that hears chunks, of milliseconds."""
    audio = 0.1 * torch.randn(3, 8000, generator=torch.Generator().manual_seed(1))
    return streaming_encoder(dense_encoder(kind), chunk_ms=chunk_ms, left_ms=left_ms, right_ms=right_ms, audio=[audio])
