"""torchaudio's encoder with what distillation and deployment add: layer 0 and waveform normalisation.

Legend: B batch, T frames, D residual width, L transformer layers.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchaudio.models import Wav2Vec2Model, wav2vec2_model


class SpeechEncoder(Wav2Vec2Model):
    """A `torchaudio.models.Wav2Vec2Model` that normalises its input where the checkpoint was trained so.

    Interface and parameter names are torchaudio's.
    """

    normalize_waveform: bool = False

    def extract_features(
        self, waveforms: Tensor, lengths: Tensor | None = None, num_layers: int | None = None
    ) -> tuple[list[Tensor], Tensor | None]:
        """Outputs of the transformer layers.

        Args:
            waveforms: (B, samples) at 16 kHz.
            lengths: (B,) valid samples; all by default.
            num_layers: How many layers to go through; all by default.

        Returns:
            L tensors (B, T, D), and the valid frames (B,) where `lengths` were given.
        """
        return super().extract_features(self.normalize(waveforms, lengths), lengths, num_layers)

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Output of the encoder (and of the auxiliary head, if any), with valid frames; see `extract_features`."""
        return super().forward(self.normalize(waveforms, lengths), lengths)

    def hidden_states(self, waveforms: Tensor, num_layers: int | None = None) -> list[Tensor]:
        """Hidden states as DPHuBERT numbers them: 0 is the projected CNN output, before the positional convolution.

        In training mode a layer is skipped with the probability `layer_drop` of the transformer.

        Args:
            waveforms: (B, samples) at 16 kHz.
            num_layers: How many transformer layers to go through; all by default.

        Returns:
            1 + L tensors (B, T, D).
        """
        encoder: Any = self.encoder
        features, _ = self.feature_extractor(self.normalize(waveforms), None)
        x = encoder.feature_projection(features)
        transformer = encoder.transformer
        states, x, bias = [x], transformer._preprocess(x), None
        for layer in transformer.layers[:num_layers]:
            if not (self.training and transformer.layer_drop and torch.rand(()).item() < transformer.layer_drop):
                x, bias = layer(x, None, position_bias=bias)
            states.append(x)
        return states

    def normalize(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Give each clip zero mean and unit variance over its valid samples, where the checkpoint wants it.

        Args:
            waveforms: (B, samples).
            lengths: (B,) valid samples; all by default.
        """
        if not self.normalize_waveform:
            return waveforms
        if lengths is None:
            return nn.functional.layer_norm(waveforms, waveforms.shape[-1:])
        valid = torch.arange(waveforms.shape[1], device=waveforms.device) < lengths[:, None]
        count = lengths[:, None].clamp_min(1)
        mean = (waveforms * valid).sum(1, keepdim=True) / count
        variance = (((waveforms - mean) * valid) ** 2).sum(1, keepdim=True) / count
        return (waveforms - mean) * valid * torch.rsqrt(variance + 1e-5)


def build_encoder(config: Mapping[str, Any]) -> SpeechEncoder:
    """A dense encoder with random weights.

    Args:
        config: Arguments of `torchaudio.models.wav2vec2_model`, and `normalize_waveform`.
    """
    arguments = dict(config)
    normalize_waveform = bool(arguments.pop("normalize_waveform", False))
    plain = wav2vec2_model(**arguments)
    encoder = SpeechEncoder(plain.feature_extractor, plain.encoder, plain.aux)
    encoder.normalize_waveform = normalize_waveform
    return encoder
