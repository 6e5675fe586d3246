"""torchaudio's encoders with what pruning, distillation and deployment add. The file stands alone, for exports.

- Layer 0, waveform normalisation, widths that differ from layer to layer, blocks that are not there.
- WavLM's attention with separate projections, so that heads can be cut; its relative position bias stands outside the
  layers, so that no layer's removal takes it away from the others.

Legend: B batch, T frames, D residual width, L layers, H heads of width d in the dense network, h heads left.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchaudio.models import Wav2Vec2Model, wav2vec2_model
from torchaudio.models.wav2vec2.components import FeatureExtractor, FeedForward, SelfAttention, Transformer

_MOST_STRIDE = 16_000
"""Samples from a frame to the next: a second."""
_CLOSED = -10000.0
"""Added to the scores of what is not seen; torchaudio's, whose softmax is exactly 0."""


class SpeechEncoder(Wav2Vec2Model):
    """A `torchaudio.models.Wav2Vec2Model` that normalises its input where the checkpoint was trained so.

    Interface and parameter names are torchaudio's.
    """

    normalize_waveform: bool = False
    level: Any = None
    """Of a streaming encoder, a `RunningLevel`, where the dense one hears whole clips to normalise them."""
    config: Mapping[str, Any] = {}
    """What `build_encoder` made it from."""

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

    def hidden_states(
        self, waveforms: Tensor, num_layers: int | None = None, lengths: Tensor | None = None
    ) -> list[Tensor]:
        """Hidden states as DPHuBERT numbers them: 0 is the projected CNN output, before the positional convolution.

        In training mode a layer is skipped with the probability `layer_drop` of the transformer.

        Args:
            waveforms: (B, samples) at 16 kHz.
            num_layers: How many transformer layers to go through; all by default.
            lengths: (B,) valid samples; all by default.

        Returns:
            1 + L tensors (B, T, D).
        """
        encoder: Any = self.encoder
        features, frames = self.feature_extractor(self.normalize(waveforms, lengths), lengths)
        x, mask = encoder._preprocess(features, frames)
        return [x, *encoder.transformer.get_intermediate_outputs(x, mask, num_layers)]

    def normalize(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Give each clip zero mean and unit variance over its valid samples, where the checkpoint wants it.

        A streaming encoder normalises each sample by those before it instead.

        Args:
            waveforms: (B, samples).
            lengths: (B,) valid samples; all by default.
        """
        if self.level is not None:
            return self.level(waveforms)[0]
        return normalized(waveforms, lengths) if self.normalize_waveform else waveforms


def normalized(waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Clips (B, samples) with zero mean and unit variance over their valid samples, `lengths` (B,) or all."""
    if lengths is None:
        return nn.functional.layer_norm(waveforms, waveforms.shape[-1:])
    valid = torch.arange(waveforms.shape[1], device=waveforms.device) < lengths[:, None]
    count = lengths[:, None].clamp_min(1)
    mean = (waveforms * valid).sum(1, keepdim=True) / count
    variance = (((waveforms - mean) * valid) ** 2).sum(1, keepdim=True) / count
    return (waveforms - mean) * valid * torch.rsqrt(variance + 1e-5)


class SpeechTransformer(Transformer):
    """torchaudio's transformer; WavLM's relative position bias is computed here, once for all layers.

    Args:
        plain: torchaudio's.
        rel_attn_embed: WavLM's relative position bias.
    """

    chunks: Any = None
    """Of a streaming encoder, the `Chunks` that its frames see."""

    def __init__(self, plain: Transformer, rel_attn_embed: "RelativePositionBias | None" = None) -> None:
        super().__init__(plain.pos_conv_embed, 0.0, plain.layers, plain.layer_norm_first, plain.layer_drop)
        self.layer_norm, self.dropout = plain.layer_norm, plain.dropout
        self.rel_attn_embed = rel_attn_embed
        self.activation_checkpointing = False

    def forward(self, x: Tensor, attention_mask: Tensor | None = None, position_bias: Tensor | None = None) -> Tensor:
        """x: (B, T, D); attention_mask: (B, 1, T, T), added to the scores -> (B, T, D)."""
        x = self.get_intermediate_outputs(x, attention_mask)[-1]
        return x if self.layer_norm_first else self.layer_norm(x)

    def get_intermediate_outputs(
        self, x: Tensor, attention_mask: Tensor | None = None, num_layers: int | None = None
    ) -> list[Tensor]:
        """Outputs (B, T, D) of the first `num_layers` layers, or of all; arguments as `forward`'s."""
        frames, states = x.shape[1], []
        layers: Any = self.layers
        if self.chunks is None:
            x = self._preprocess(x)
            bias = None if self.rel_attn_embed is None else self.rel_attn_embed(frames)
        else:
            x, attention_mask, bias = self._in_chunks(x, attention_mask)
        for layer in layers[:num_layers]:
            if not (self.training and self.layer_drop and torch.rand(()).item() < self.layer_drop):
                x, _ = self._run(layer, x, attention_mask, bias)
            states.append(x if self.chunks is None else self.chunks.joined(x, frames))
        return states

    def _in_chunks(self, x: Tensor, padding: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """The chunks of a clip with their right contexts, one after the other: S frames in all.

        Args:
            x: (B, T, D).
            padding: (B, 1, T, T), added to the scores, or none.

        Returns:
            What enters the layers (B, S, D), what is added to the scores (B, 1, S, S), and the position bias.
        """
        frames, convolution = x.shape[1], self.pos_conv_embed
        kernel: int = convolution.kernel_size  # type: ignore[assignment]
        before, conv = kernel // 2, convolution.conv  # type: ignore[union-attr]
        heard = self.chunks.gathered(x, self.chunks.places(frames, before, x.device))  # (B, M, before + R, D)
        # Frames after the right context are 0, as they are after the end of a clip.
        padded = nn.functional.pad(heard.flatten(0, 1).transpose(1, 2), (0, kernel - 1 - before))
        embedded = nn.functional.conv1d(padded, conv.weight, conv.bias, groups=conv.groups)  # type: ignore[union-attr, arg-type]
        embedded = nn.functional.gelu(embedded).transpose(1, 2).unflatten(0, heard.shape[:2])
        x = (heard[:, :, before:] + embedded).flatten(1, 2)
        places = self.chunks.places(frames, 0, x.device)
        closed = ~self.chunks.mask(places, frames)
        mask = _CLOSED * closed.to(x.dtype)[None, None]
        if padding is not None:
            # Of padding all rows are alike.
            mask = mask + padding[:, :, :1][..., places.flatten().clamp_max(frames - 1)]
        bias = None
        if self.rel_attn_embed is not None:
            bias = self.rel_attn_embed.between(places.flatten(), places.shape[0] * self.chunks.size + self.chunks.right)
        x = self.layer_norm(x) if self.layer_norm_first else x
        return self.dropout(x), mask.expand(x.shape[0], 1, x.shape[1], x.shape[1]), bias

    def _run(self, layer: nn.Module, x: Tensor, mask: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Any]:
        if not (self.activation_checkpointing and self.training and torch.is_grad_enabled()):
            return layer(x, mask, position_bias=bias)
        return checkpoint(layer, x, mask, position_bias=bias, use_reentrant=False)  # type: ignore[return-value]


class RelativePositionBias(nn.Embedding):
    """WavLM's relative position bias (arXiv 2110.13900, section 3.1), after T5's buckets.

    Args:
        num_buckets: Half of them for each direction; half of those for single distances, the others logarithmic.
        num_heads: H.
        max_distance: From here on all distances share a bucket.
    """

    def __init__(self, num_buckets: int, num_heads: int, max_distance: int) -> None:
        if not max_distance > num_buckets // 4 > 0:
            raise ValueError(f"a maximal distance of {max_distance} for {num_buckets} buckets")
        super().__init__(num_buckets, num_heads)
        self.max_distance = max_distance

    def forward(self, frames: int) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Number of frames T -> bias (1, H, T, T) of each query for each key."""
        return self.between(torch.arange(frames, device=self.weight.device), frames)

    def between(self, position: Tensor, frames: int) -> Tensor:
        """Positions (T,), each below `frames` -> bias (1, H, T, T) of each query for each key."""
        # Each of the 2 T - 1 distances is looked up once.
        by_distance = super().forward(self.bucket(torch.arange(2 * frames - 1, device=position.device) - (frames - 1)))
        distance = position[None, :] - position[:, None] + (frames - 1)
        return by_distance[distance].permute(2, 0, 1)[None]

    def bucket(self, distance: Tensor) -> Tensor:
        """Key position minus query position, of any shape -> the bucket of each."""
        each_way = self.num_embeddings // 2
        exact = each_way // 2
        far = torch.log(distance.abs().float().clamp_min(1) / exact) / math.log(self.max_distance / exact)
        far = (exact + (far * (each_way - exact)).long()).clamp_max(each_way - 1)
        return (distance > 0).long() * each_way + torch.where(distance.abs() < exact, distance.abs(), far)


class WavLMAttention(SelfAttention):
    """WavLM's self-attention with gated relative position bias, its query, key and value projections apart.

    A head that is left keeps its own bias and gate: `head_index` says which heads of the dense network these are.

    Args:
        embed_dim: D.
        num_heads: H.
        dropout: On the attention weights.
    """

    head_index: Tensor

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__(embed_dim, num_heads, dropout)
        self.gru_rel_pos_linear = nn.Linear(self.head_dim, 8)
        self.gru_rel_pos_const = nn.Parameter(torch.ones(1, num_heads, 1, 1))
        # Made again from the configuration, hence not saved.
        self.register_buffer("head_index", torch.arange(num_heads), persistent=False)

    def forward(
        self,
        x: Tensor,
        attention_mask: Tensor | None = None,
        position_bias: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """Attend.

        Args:
            x: (B, T, D).
            attention_mask: (B, 1, T, T), added to the scores.
            position_bias: (1, H, T, T), gated by each query and added to the scores; none by default.
            key_padding_mask: Not used; padding is in `attention_mask`.

        Returns:
            (B, T, D), and None, as torchaudio's attention does.
        """
        shape = (x.shape[0], x.shape[1], -1, self.head_dim)
        query, key, value = (
            project(x).view(shape).transpose(1, 2) for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        if position_bias is not None:
            bias = self.gate(x) * position_bias[:, self.head_index]
            attention_mask = bias if attention_mask is None else bias + attention_mask
        output = nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, dropout_p=self.dropout if self.training else 0.0
        )
        return self.out_proj(output.transpose(1, 2).flatten(2)), None

    def gate(self, x: Tensor) -> Tensor:
        """x: (B, T, D) -> the factor (B, h, T, 1) of each query's position bias, read off its slice of the input."""
        # Of every head: what this costs is nothing, and does not depend on which are left.
        slices = x.unflatten(-1, (-1, self.head_dim))
        update, reset = self.gru_rel_pos_linear(slices).unflatten(-1, (2, 4)).sum(-1).sigmoid().chunk(2, -1)
        gate = update.transpose(1, 2) * (reset.transpose(1, 2) * self.gru_rel_pos_const - 1.0) + 2.0
        return gate[:, self.head_index]


class ScaledFeatureExtractor(FeatureExtractor):
    """torchaudio's convolutions with a factor for each channel of the last, as published DPHuBERT students have.

    Args:
        plain: torchaudio's.
    """

    dummy_weight: Tensor

    def __init__(self, plain: FeatureExtractor) -> None:
        super().__init__(plain.conv_layers)
        self.register_buffer("dummy_weight", torch.ones(plain.conv_layers[-1].conv.out_channels))  # type: ignore[union-attr, arg-type]

    def forward(self, x: Tensor, length: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """x: (B, samples) -> (B, T, channels) and valid frames."""
        features, length = super().forward(x, length)
        return features * self.dummy_weight, length


class Emptied(nn.Module):
    """In place of a residual block that is not there: a zero that broadcasts over the residual stream.

    Args:
        pair: Whether the block returns a second value, None.
    """

    def __init__(self, *, pair: bool) -> None:
        super().__init__()
        self.pair = pair

    def forward(self, x: Tensor, *_args: object, **_kwargs: object) -> Tensor | tuple[Tensor, None]:
        """x: (B, T, D) -> a scalar 0."""
        zero = x.new_zeros(())
        return (zero, None) if self.pair else zero


def build_encoder(config: Mapping[str, Any]) -> SpeechEncoder:
    """An encoder with random weights.

    Args:
        config: Arguments of `torchaudio.models.wav2vec2_model`, and where they apply

            - `normalize_waveform`: whether clips are normalised first.
            - `encoder_num_buckets`, `encoder_max_distance`: those of WavLM's relative position bias.
            - `encoder_remaining_heads`: the heads of each layer, by their indices among `encoder_num_heads`; a layer
              with none has no attention.
            - `encoder_ff_interm_features` as a list: the width of each layer; a layer with 0 has no feed-forward block.
            - `extractor_channel_scale`: whether the last convolution's channels have factors.
            - `streaming`: `chunk_frames`, `left_frames`, `right_frames`, and the training data's `variance` where the
              level of a clip is not known before its end.
            - `family`: hubert, wav2vec2 or wavlm; it changes nothing here.
    """
    arguments = dict(config)
    arguments.pop("family", None)
    normalize_waveform = bool(arguments.pop("normalize_waveform", False))
    channel_scale = arguments.pop("extractor_channel_scale", False)
    streaming = arguments.pop("streaming", None)
    buckets, distance = (arguments.pop(f"encoder_{name}", None) for name in ("num_buckets", "max_distance"))
    heads = arguments.pop("encoder_remaining_heads", None)
    strides = [stride for _channels, _kernel, stride in arguments["extractor_conv_layer_config"]]
    # No shape of a weight depends on them: they would be found to be wrong with the first clip.
    if min(strides) < 1 or math.prod(strides) > _MOST_STRIDE:
        raise ValueError(f"strides {strides}: a frame each {math.prod(strides)} samples")
    widths = arguments["encoder_ff_interm_features"]
    if not isinstance(widths, int):
        arguments["encoder_ff_interm_features"] = max([1, *widths])
    arguments.setdefault("aux_num_out", None)
    plain = wav2vec2_model(**arguments)
    bias = None
    if buckets is not None:
        bias = RelativePositionBias(buckets, arguments["encoder_num_heads"], distance)
        for layer in plain.encoder.transformer.layers:  # type: ignore[union-attr]
            dense = layer.attention
            layer.attention = WavLMAttention(dense.embed_dim, dense.num_heads, dense.dropout)  # type: ignore[union-attr]
    plain.encoder.transformer = SpeechTransformer(plain.encoder.transformer, bias)  # type: ignore[union-attr, arg-type]
    extractor: Any = ScaledFeatureExtractor(plain.feature_extractor) if channel_scale else plain.feature_extractor  # type: ignore[arg-type]
    encoder = SpeechEncoder(extractor, plain.encoder, plain.aux)
    encoder.normalize_waveform, encoder.config = normalize_waveform, dict(config)
    _narrow(encoder, heads, None if isinstance(widths, int) else widths)
    if streaming is not None:
        _stream(encoder, streaming)
    return encoder


def _stream(encoder: SpeechEncoder, streaming: Mapping[str, Any]) -> None:
    """Let an encoder see chunks, and no statistics of whole clips."""
    # Imported here, because this file goes along alone with what is pickled.
    from l0prune_speech.encoder.chunks import ChannelAffine, Chunks, RunningLevel

    size, left, right = (int(streaming[f"{name}_frames"]) for name in ("chunk", "left", "right"))
    if size < 1 or left < 0 or right < 0:
        raise ValueError(f"chunks of {size} frames, {left} to the left and {right} to the right")
    encoder.encoder.transformer.chunks = Chunks(size, left, right)  # type: ignore[union-attr, assignment]
    if streaming.get("variance") is not None:
        encoder.level = RunningLevel(float(streaming["variance"]))
    for block in encoder.feature_extractor.conv_layers:  # type: ignore[union-attr]
        if isinstance(block.layer_norm, nn.GroupNorm):
            block.layer_norm = ChannelAffine(block.layer_norm.num_channels)  # type: ignore[assignment]


def _narrow(encoder: SpeechEncoder, heads: Sequence[Sequence[int]] | None, widths: Sequence[int] | None) -> None:
    """Give each layer the heads and the feed-forward width that are its own."""
    layers = encoder.encoder.transformer.layers  # type: ignore[union-attr]
    for name, own in (("heads", heads), ("feed-forward widths", widths)):
        if own is not None and len(own) != len(layers):  # type: ignore[arg-type]
            raise ValueError(f"{name} of {len(own)} layers, where there are {len(layers)}")  # type: ignore[arg-type]
    for i, layer in enumerate(layers):  # type: ignore[arg-type]
        if heads is not None:
            layer.attention = _with_heads(layer.attention, heads[i]) if heads[i] else Emptied(pair=True)
        if widths is not None:
            layer.feed_forward = _with_width(layer.feed_forward, widths[i]) if widths[i] else Emptied(pair=False)


def _with_heads(attention: SelfAttention, heads: Sequence[int]) -> SelfAttention:
    if not all(0 <= head < attention.num_heads for head in heads):
        raise ValueError(f"heads {list(heads)} of {attention.num_heads}")
    width = len(heads) * attention.head_dim
    attention.num_heads = len(heads)
    attention.q_proj, attention.k_proj, attention.v_proj = (nn.Linear(attention.embed_dim, width) for _ in "qkv")
    attention.out_proj = nn.Linear(width, attention.embed_dim)
    if isinstance(attention, WavLMAttention):
        attention.head_index = torch.tensor(heads)
    return attention


def _with_width(block: FeedForward, width: int) -> FeedForward:
    residual = block.output_dense.out_features
    block.intermediate_dense, block.output_dense = nn.Linear(residual, width), nn.Linear(width, residual)
    return block


def slim_config(encoder: SpeechEncoder) -> dict[str, Any]:
    """The configuration that `build_encoder` makes an encoder of these widths from.

    Args:
        encoder: Dense or pruned.
    """
    blocks = encoder.feature_extractor.conv_layers  # type: ignore[union-attr]
    convolutions = zip(encoder.config["extractor_conv_layer_config"], blocks, strict=True)  # type: ignore[arg-type]
    heads, widths = [], []
    for layer in encoder.encoder.transformer.layers:  # type: ignore[union-attr]
        left = getattr(layer.attention, "num_heads", 0)
        index = getattr(layer.attention, "head_index", range(left))
        heads.append([int(head) for head in index])
        there = any(True for _ in layer.feed_forward.parameters())
        widths.append(layer.feed_forward.intermediate_dense.out_features if there else 0)
    config = {
        **encoder.config,
        "extractor_conv_layer_config": [(layer.conv.out_channels, *shape[1:]) for shape, layer in convolutions],
    }
    total = config["encoder_num_heads"]
    if any(left != list(range(total)) for left in heads):
        config["encoder_remaining_heads"] = heads
    else:
        config.pop("encoder_remaining_heads", None)
    config["encoder_ff_interm_features"] = widths[0] if len({*widths}) == 1 and widths[0] else widths
    return config
