"""Steps of distillation that are timed against each other: encoders of two sizes, and one step of a stage."""

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from l0prune.training import Stage

WIDTHS = {"base": (512, 768, 128, 12, 12, 3072), "small": (128, 256, 64, 6, 8, 1024)}


def encoder_config(model: str) -> dict[str, object]:
    """A HuBERT encoder in the Base layout."""
    conv, width, kernel, layers, heads, units = WIDTHS[model]
    return {
        "extractor_mode": "group_norm",
        "extractor_conv_layer_config": [(conv, 10, 5)] + [(conv, 3, 2)] * 4 + [(conv, 2, 2)] * 2,
        "extractor_conv_bias": False,
        "encoder_embed_dim": width,
        "encoder_projection_dropout": 0.1,
        "encoder_pos_conv_kernel": kernel,
        "encoder_pos_conv_groups": 16,
        "encoder_num_layers": layers,
        "encoder_num_heads": heads,
        "encoder_attention_dropout": 0.1,
        "encoder_ff_interm_features": units,
        "encoder_ff_interm_dropout": 0.0,
        "encoder_dropout": 0.1,
        "encoder_layer_norm_first": False,
        "encoder_layer_drop": 0.0,
        "aux_num_out": None,
    }


def run_step(stage: Stage, batches: Iterator[Tensor]) -> float:
    """Seconds of one optimizer step."""
    began = time.perf_counter()
    stage.objective.train()
    stage.update(batches)
    if stage.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began
