"""A small encoder of torchaudio's layout; what the published model class holds."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from l0prune_speech.encoder.modules import SpeechEncoder, build_encoder


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


@pytest.fixture
def published_shapes() -> Callable[..., dict[str, tuple[int, ...]]]:
    """Reads the parameters of DPHuBERT's model class off a checkpoint's configuration."""
    return _published_shapes


def _published_shapes(
    config: dict[str, Any], *, weight_norm: tuple[str, str] = ("weight_g", "weight_v")
) -> dict[str, tuple[int, ...]]:
    """Parameters of the published model class, by name, read off its configuration alone."""
    width, shapes = config["encoder_embed_dim"], {}

    def linear(name: str, inputs: int, outputs: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs), (outputs,)

    def norm(name: str, channels: int) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (channels,)

    channels = 1
    for i, (outputs, kernel, _stride) in enumerate(config["extractor_conv_layer_config"]):
        layer = f"feature_extractor.conv_layers.{i}"
        shapes[f"{layer}.conv.weight"] = (outputs, channels, kernel)
        if config["extractor_conv_bias"]:
            shapes[f"{layer}.conv.bias"] = (outputs,)
        if config["extractor_mode"] == "layer_norm" or i == 0:
            norm(f"{layer}.layer_norm", outputs)
        channels = outputs
    shapes["feature_extractor.dummy_weight"] = (channels,)
    norm("encoder.feature_projection.layer_norm", channels)
    linear("encoder.feature_projection.projection", channels, width)
    kernel, groups = config["encoder_pos_conv_kernel"], config["encoder_pos_conv_groups"]
    positional = "encoder.transformer.pos_conv_embed.conv"
    shapes[f"{positional}.bias"] = (width,)
    shapes[f"{positional}.{weight_norm[0]}"] = (1, 1, kernel)
    shapes[f"{positional}.{weight_norm[1]}"] = (width, width // groups, kernel)
    norm("encoder.transformer.layer_norm", width)
    wavlm = "encoder_remaining_heads" in config
    for i in range(config["encoder_num_layers"]):
        layer = f"encoder.transformer.layers.{i}"
        if config["encoder_use_attention"][i]:
            if wavlm:
                total = config["encoder_total_num_heads"][i]
                head, heads = width // total, len(config["encoder_remaining_heads"][i])
                shapes[f"{layer}.attention.gru_rel_pos_const"] = (1, total, 1, 1)
                linear(f"{layer}.attention.gru_rel_pos_linear", head, 8)
                if i == 0:
                    shapes[f"{layer}.attention.rel_attn_embed.weight"] = (config["encoder_num_buckets"], total)
            else:
                head, heads = config["encoder_head_dim"], config["encoder_num_heads"][i]
            for name in "kvq":
                linear(f"{layer}.attention.{name}_proj", width, heads * head)
            linear(f"{layer}.attention.out_proj", heads * head, width)
        norm(f"{layer}.layer_norm", width)
        if config["encoder_use_feed_forward"][i]:
            units = config["encoder_ff_interm_features"][i]
            linear(f"{layer}.feed_forward.intermediate_dense", width, units)
            linear(f"{layer}.feed_forward.output_dense", units, width)
        norm(f"{layer}.final_layer_norm", width)
    return shapes
