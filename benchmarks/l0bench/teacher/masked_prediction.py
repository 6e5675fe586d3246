"""HuBERT's masked prediction (Hsu et al. 2021) on units of several sources.

Legend: B crops, T frames, D width, S samples, K units of a source.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torchaudio
from torch import Tensor, nn
from torch.nn import functional as F

ENCODER: dict[str, Any] = {
    "extractor_mode": "group_norm",
    "extractor_conv_layer_config": [[128, 10, 5]] + [[128, 3, 2]] * 4 + [[128, 2, 2]] * 2,
    "extractor_conv_bias": False,
    "encoder_embed_dim": 256,
    "encoder_projection_dropout": 0.1,
    # A positional convolution that sees 1.3 s, as HuBERT's of 128 does, fills a masked span of 0.2 s by itself.
    "encoder_pos_conv_kernel": 32,
    "encoder_pos_conv_groups": 16,
    "encoder_num_layers": 6,
    "encoder_num_heads": 8,
    "encoder_attention_dropout": 0.1,
    "encoder_ff_interm_features": 1024,
    "encoder_ff_interm_dropout": 0.0,
    "encoder_dropout": 0.1,
    "encoder_layer_norm_first": False,
    # Layers that are dropped in training are layers that nothing depends on.
    "encoder_layer_drop": 0.0,
}
SPAN = 10
"""Frames of a masked span, as published."""


class MaskedPredictor(nn.Module):
    """The encoder, what stands in for masked frames, and one linear classifier for each source of units.

    Args:
        classes: The number of units of each source.
    """

    def __init__(self, classes: Mapping[str, int]) -> None:
        super().__init__()
        self.encoder = torchaudio.models.wav2vec2_model(**ENCODER, aux_num_out=None)
        self.mask = nn.Parameter(torch.empty(ENCODER["encoder_embed_dim"]).uniform_())
        self.sources = list(classes)
        self.heads = nn.ModuleList(nn.Linear(len(self.mask), count) for count in classes.values())

    def forward(self, waveforms: Tensor, masked: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Units' logits.

        Args:
            waveforms: (B, S) in -1 to 1.
            masked: (B, T) bool, the frames that the transformer does not see.

        Returns:
            Logits (B, T, K) float32 of each source, and the mean square of the convolutions' output, which is kept
            small as in the published loss.
        """
        features, _ = self.encoder.feature_extractor(waveforms, None)
        inner = self.encoder.encoder
        projected = inner.feature_projection(features)
        states = inner.transformer(torch.where(masked[..., None], self.mask.to(projected.dtype), projected))
        logits = {name: head(states).float() for name, head in zip(self.sources, self.heads, strict=True)}
        return logits, features.float().square().mean()


def masked_spans(crops: int, frames: int, share: float, generator: torch.Generator) -> Tensor:
    """Spans of `SPAN` frames from random beginnings, which may overlap. (B, T) bool.

    Args:
        crops: B.
        frames: T.
        share: Beginnings times the span's length by the frames: 0.8 masks 55 % of them.
        generator: The source of randomness.
    """
    masked = torch.zeros(crops, frames, dtype=torch.bool)
    for row in masked:
        begins = torch.randperm(frames - SPAN + 1, generator=generator)[: int(share * frames / SPAN)]
        row[(begins[:, None] + torch.arange(SPAN)).flatten()] = True
    return masked


def unit_losses(logits: Mapping[str, Tensor], units: Mapping[str, Tensor], chosen: Tensor) -> dict[str, Tensor]:
    """Mean cross-entropy in nats over the chosen frames (B, T) bool, for each source."""
    return {name: F.cross_entropy(found[chosen], units[name][chosen]) for name, found in logits.items()}


def unit_accuracies(logits: Mapping[str, Tensor], units: Mapping[str, Tensor], chosen: Tensor) -> dict[str, float]:
    """Share of the chosen frames whose unit is the likeliest, for each source."""
    return {
        name: float((found[chosen].argmax(-1) == units[name][chosen]).float().mean()) for name, found in logits.items()
    }
