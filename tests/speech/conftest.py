"""A small encoder of torchaudio's layout."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from l0prune_speech.modules import SpeechEncoder, build_encoder


@pytest.fixture
def encoder_config() -> dict[str, Any]:
    """Arguments of `build_encoder`: HuBERT Base's layout, small, with its dropout."""
    return {
        "extractor_mode": "group_norm",
        "extractor_conv_layer_config": [(6, 10, 5), (6, 3, 2)],
        "extractor_conv_bias": False,
        "encoder_embed_dim": 8,
        "encoder_projection_dropout": 0.1,
        "encoder_pos_conv_kernel": 4,
        "encoder_pos_conv_groups": 2,
        "encoder_num_layers": 3,
        "encoder_num_heads": 2,
        "encoder_attention_dropout": 0.1,
        "encoder_ff_interm_features": 12,
        "encoder_ff_interm_dropout": 0.1,
        "encoder_dropout": 0.1,
        "encoder_layer_norm_first": False,
        "encoder_layer_drop": 0.05,
        "aux_num_out": None,
    }


@pytest.fixture
def make_encoder(encoder_config: dict[str, Any]) -> Callable[..., SpeechEncoder]:
    """Makes an encoder in evaluation mode from a seed and changes to `encoder_config`."""

    def make(seed: int = 0, **changes: Any) -> SpeechEncoder:
        torch.manual_seed(seed)
        return build_encoder({**encoder_config, **changes}).eval()

    return make
