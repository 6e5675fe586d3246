"""Pruned HuBERT, wav2vec 2.0 and WavLM encoders for Hugging Face transformers.

The file stands alone, beside the config.json whose table "l0prune" gives the widths of each layer. Outputs, masks and
arguments are those of transformers' own HubertModel, Wav2Vec2Model and WavLMModel, and of their models for tasks.

Legend: B batch, T frames, D residual width, H heads of width d in the dense network, h heads left.
"""

from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import (
    HubertForCTC,
    HubertForSequenceClassification,
    HubertModel,
    Wav2Vec2ForAudioFrameClassification,
    Wav2Vec2ForCTC,
    Wav2Vec2ForSequenceClassification,
    Wav2Vec2ForXVector,
    Wav2Vec2Model,
    WavLMForAudioFrameClassification,
    WavLMForCTC,
    WavLMForSequenceClassification,
    WavLMForXVector,
    WavLMModel,
)
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

# Up to version 4 attention returned a third value.
_RETURNS = 2 if int(transformers.__version__.partition(".")[0]) >= 5 else 3


class _Pruned:
    """One of transformers' models whose encoder has a width for each layer."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)  # type: ignore[call-arg]
        # A model for a task has its encoder under this name; the encoder itself has nothing there.
        _narrow(getattr(self, self.base_model_prefix, self), config)  # type: ignore[attr-defined]
        self.post_init()  # type: ignore[attr-defined]


class PrunedHubertModel(_Pruned, HubertModel):
    """transformers' HubertModel with a width for each layer."""


class PrunedHubertForCTC(_Pruned, HubertForCTC):
    """transformers' HubertForCTC with a width for each layer."""


class PrunedHubertForSequenceClassification(_Pruned, HubertForSequenceClassification):
    """transformers' HubertForSequenceClassification with a width for each layer."""


class PrunedWav2Vec2Model(_Pruned, Wav2Vec2Model):
    """transformers' Wav2Vec2Model with a width for each layer."""


class PrunedWav2Vec2ForCTC(_Pruned, Wav2Vec2ForCTC):
    """transformers' Wav2Vec2ForCTC with a width for each layer."""


class PrunedWav2Vec2ForSequenceClassification(_Pruned, Wav2Vec2ForSequenceClassification):
    """transformers' Wav2Vec2ForSequenceClassification with a width for each layer."""


class PrunedWav2Vec2ForAudioFrameClassification(_Pruned, Wav2Vec2ForAudioFrameClassification):
    """transformers' Wav2Vec2ForAudioFrameClassification with a width for each layer."""


class PrunedWav2Vec2ForXVector(_Pruned, Wav2Vec2ForXVector):
    """transformers' Wav2Vec2ForXVector with a width for each layer."""


class PrunedWavLMModel(_Pruned, WavLMModel):
    """transformers' WavLMModel with a width for each layer."""


class PrunedWavLMForCTC(_Pruned, WavLMForCTC):
    """transformers' WavLMForCTC with a width for each layer."""


class PrunedWavLMForSequenceClassification(_Pruned, WavLMForSequenceClassification):
    """transformers' WavLMForSequenceClassification with a width for each layer."""


class PrunedWavLMForAudioFrameClassification(_Pruned, WavLMForAudioFrameClassification):
    """transformers' WavLMForAudioFrameClassification with a width for each layer."""


class PrunedWavLMForXVector(_Pruned, WavLMForXVector):
    """transformers' WavLMForXVector with a width for each layer."""


class PrunedWavLMAttention(WavLMAttention):
    """WavLM's attention with the heads that are left; without any it still hands on the position bias.

    Args:
        dense: transformers' own.
        heads: Indices of the heads that are left.
    """

    def __init__(self, dense: WavLMAttention, heads: list[int]) -> None:
        nn.Module.__init__(self)
        self.embed_dim, self.head_dim, self.dropout = dense.embed_dim, dense.head_dim, dense.dropout
        self.total_heads, self.num_heads, self.heads = dense.num_heads, len(heads), heads
        self.num_buckets, self.max_distance = dense.num_buckets, dense.max_distance
        if heads:
            self.gru_rel_pos_const, self.gru_rel_pos_linear = dense.gru_rel_pos_const, dense.gru_rel_pos_linear
            _narrow_projections(self, self.embed_dim, len(heads) * self.head_dim)
        if hasattr(dense, "rel_attn_embed"):
            self.rel_attn_embed = dense.rel_attn_embed

    def forward(  # type: ignore[override]
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_bias: Tensor | None = None,
        output_attentions: bool = False,
        index: int = 0,
        **_kwargs: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Attend.

        Args:
            hidden_states: (B, T, D).
            attention_mask: (B, T), nonzero for valid frames.
            position_bias: (1, H, T, T), as the first layer returns it.
            output_attentions: Whether to return the attention weights.
            index: Not used.

        Returns:
            (B, T, D), the weights (B, h, T, T) or None, and the position bias.
        """
        frames = hidden_states.shape[1]
        if position_bias is None:
            position_bias = self.compute_bias(frames, frames)[None]
        if not self.heads:
            return torch.zeros_like(hidden_states), None, position_bias
        slices = hidden_states.unflatten(-1, (self.total_heads, -1))[:, :, self.heads]
        update, reset = (
            self.gru_rel_pos_linear(slices).unflatten(-1, (2, 4)).sum(-1).sigmoid().transpose(1, 2).chunk(2, -1)
        )
        gate = update * (reset * self.gru_rel_pos_const[:, self.heads] - 1.0) + 2.0
        mask = gate * position_bias[:, self.heads]
        if attention_mask is not None:
            mask = mask.masked_fill(attention_mask.ne(1)[:, None, None, :], torch.finfo(mask.dtype).min)
        query, key, value = (
            project(hidden_states).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        dropout, weights = self.dropout if self.training else 0.0, None
        if output_attentions:
            scores = query @ key.transpose(-1, -2) * self.head_dim**-0.5 + mask
            weights = nn.functional.dropout(scores.softmax(-1), dropout, self.training)
            output = weights @ value
        else:
            output = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        return self.out_proj(output.transpose(1, 2).flatten(2)), weights, position_bias


class EmptiedAttention(nn.Module):
    """In place of an attention block that is not there."""

    def forward(self, hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor | None, ...]:
        """hidden_states: (B, T, D) -> zeros, and None for all that attention returns beside."""
        return (torch.zeros_like(hidden_states), *[None] * (_RETURNS - 1))


class EmptiedFeedForward(nn.Module):
    """In place of a feed-forward block that is not there."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """hidden_states: (B, T, D) -> zeros."""
        return torch.zeros_like(hidden_states)


class _ScaledFeatures(nn.Module):
    """The convolutions, with a factor for each channel of the last."""

    def __init__(self, plain: nn.Module, channels: int) -> None:
        super().__init__()
        self.conv_layers: nn.ModuleList = plain.conv_layers  # type: ignore[assignment]
        self._plain = (plain,)
        self.register_buffer("dummy_weight", torch.ones(channels))

    def _freeze_parameters(self) -> None:
        for parameter in self.parameters():
            parameter.requires_grad = False

    def forward(self, input_values: Tensor) -> Tensor:
        """input_values: (B, samples) -> (B, channels, T)."""
        return self._plain[0](input_values) * self.dummy_weight[:, None]  # type: ignore[index]


def _narrow(model: Any, config: Any) -> None:
    """Give each layer of a dense model its own width."""
    widths = config.l0prune
    if widths.get("channel_scale"):
        model.feature_extractor = _ScaledFeatures(model.feature_extractor, config.conv_dim[-1])
    for i, layer in enumerate(model.encoder.layers):
        if "remaining_heads" in widths:
            layer.attention = _narrow_attention(layer.attention, list(widths["remaining_heads"][i]))
        if "intermediate_sizes" in widths:
            layer.feed_forward = _narrow_feed_forward(layer.feed_forward, widths["intermediate_sizes"][i])


def _narrow_attention(attention: Any, heads: list[int]) -> nn.Module:
    if isinstance(attention, WavLMAttention):
        return PrunedWavLMAttention(attention, heads)
    if not heads:
        return EmptiedAttention()
    attention.num_heads = len(heads)
    _narrow_projections(attention, attention.embed_dim, len(heads) * attention.head_dim)
    return attention


def _narrow_projections(attention: Any, residual: int, width: int) -> None:
    for name in ("q_proj", "k_proj", "v_proj"):
        setattr(attention, name, nn.Linear(residual, width))
    attention.out_proj = nn.Linear(width, residual)


def _narrow_feed_forward(block: Any, width: int) -> nn.Module:
    if not width:
        return EmptiedFeedForward()
    residual = block.output_dense.out_features
    block.intermediate_dense, block.output_dense = nn.Linear(residual, width), nn.Linear(width, residual)
    return block
