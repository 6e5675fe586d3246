"""One chunk through a streaming encoder: its caches go in and come out. What is exported, and what latency is taken of.

Legend: B streams, D residual width, L transformer layers, c, l and r frames of a chunk, of its left and its right
context, R = c + r, K kernel of the positional convolution, h heads of width d.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from l0prune import ConfigError
from l0prune_speech.data import Framing
from l0prune_speech.encoder import SpeechEncoder, WavLMAttention
from l0prune_speech.streaming.layout import UNKNOWN_LENGTH, Layout

_CLOSED = -10000.0


class CachedAttention(nn.Module):
    """Self-attention of a chunk and its right context to themselves and to what is kept of earlier chunks.

    Args:
        attention: torchaudio's, or WavLM's.
        chunk: c.
        left: l.
    """

    def __init__(self, attention: nn.Module, chunk: int, left: int) -> None:
        super().__init__()
        self.attention, self.chunk, self.left = attention, chunk, left

    def forward(
        self, x: Tensor, mask: Tensor, bias: Tensor | None, kept: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Attend.

        Args:
            x: (B, R, D).
            mask: (B, 1, 1, l + R), added to the scores.
            bias: (1, H, R, l + R), WavLM's, or none.
            kept: Keys and values of l frames before the chunk (B, h, l, d); nothing where l is 0.

        Returns:
            (B, R, D), and what is kept for the next chunk.
        """
        of: Any = self.attention
        query, key, value = (
            project(x).unflatten(-1, (-1, of.head_dim)).transpose(1, 2) for project in (of.q_proj, of.k_proj, of.v_proj)
        )
        if kept:
            key, value = torch.cat([kept[0], key], 2), torch.cat([kept[1], value], 2)
            kept = tuple(one[:, :, self.chunk : self.chunk + self.left] for one in (key, value))
        if bias is not None and isinstance(of, WavLMAttention):
            mask = of.gate(x) * bias[:, of.head_index] + mask
        output = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return of.out_proj(output.transpose(1, 2).flatten(2)), kept


class StreamStep(nn.Module):
    """A streaming encoder as a program of fixed shapes, one chunk a call.

    Modules keep the names that they have in the encoder, so that their time can be told.

    Args:
        encoder: A streaming encoder, dense or pruned; it is copied.

    Raises:
        ConfigError: It is no streaming encoder.
    """

    bias: Tensor | None
    position_weight: Tensor
    position_bias: Tensor

    def __init__(self, encoder: SpeechEncoder) -> None:
        super().__init__()
        chunks: Any = encoder.encoder.transformer.chunks  # type: ignore[union-attr]
        if chunks is None:
            hint = "compress it with --set speech.streaming.chunk_ms=320"
            raise ConfigError("not a streaming network: it hears whole clips", hint=hint)
        owner = copy.deepcopy(encoder).eval().requires_grad_(False)
        self.feature_extractor, self.encoder, self.level = owner.feature_extractor, owner.encoder, owner.level
        extractor: Any = self.feature_extractor
        transformer: Any = self.encoder.transformer  # type: ignore[union-attr]
        positions = transformer.pos_conv_embed
        # Read once: weight normalisation would be computed with each chunk.
        self.register_buffer("position_weight", positions.conv.weight.detach().clone())
        self.register_buffer("position_bias", positions.conv.bias.detach().clone())
        self.groups, self.kernel = int(positions.conv.groups), int(positions.kernel_size)
        width = int(self.position_bias.shape[0])
        transformer.pos_conv_embed = nn.Identity()
        self.size, self.left, self.right = chunks.size, chunks.left, chunks.right
        places = torch.arange(-self.left, self.size + self.right, device=self.position_bias.device)
        bias = None
        if transformer.rel_attn_embed is not None:
            bias = transformer.rel_attn_embed.between(places, len(places))[:, :, self.left :]
        transformer.rel_attn_embed = None
        self.register_buffer("bias", bias)
        framing = Framing.of_convolutions(encoder.config["extractor_conv_layer_config"])
        self.kernels = [(int(layer.kernel_size), int(layer.stride)) for layer in extractor.conv_layers]
        caches: dict[str, tuple[tuple[int, ...], str]] = {"steps": ((), "int64")}
        caches["overlap"] = ((framing.shortest_samples - framing.step_samples,), "float32")
        if self.level is not None:
            caches["level"] = ((2,), "float64")
        if self.kernel // 2 + self.right:
            caches["features"] = ((self.kernel // 2 + self.right, width), "float32")
        for number, layer in enumerate(transformer.layers):
            if not hasattr(layer.attention, "q_proj"):
                continue
            heads, head_dim = int(layer.attention.num_heads), int(layer.attention.head_dim)
            layer.attention = CachedAttention(layer.attention, self.size, self.left)
            if self.left:
                caches |= {f"{name}_{number}": ((heads, self.left, head_dim), "float32") for name in ("keys", "values")}
        self.layout = Layout(
            chunk_frames=self.size,
            left_frames=self.left,
            right_frames=self.right,
            shortest_samples=framing.shortest_samples,
            step_samples=framing.step_samples,
            width=width,
            layers=len(transformer.layers),
            caches=caches,
        )

    def example(self, batch: int = 1) -> tuple[Tensor, ...]:
        """Inputs of a step in the middle of streams that go on, noise: samples, lengths and caches."""
        layout, device = self.layout, self.position_bias.device
        samples = torch.randn(batch, layout.chunk_samples, generator=torch.Generator().manual_seed(0)).to(device)
        steps, *caches = layout.empty(batch, device)
        # Late enough that no frame of a cache is before the beginning.
        steps = steps + layout.lead_steps + -(-max(self.left, self.kernel) // self.size)
        return samples, torch.full((batch,), UNKNOWN_LENGTH, device=device), steps, *caches

    def forward(self, samples: Tensor, lengths: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        """Take the next samples of each stream.

        Args:
            samples: (B, chunk_samples) of `layout`; `lead_samples` zeros go before a stream, and zeros follow its end.
            lengths: (B,) samples of each stream, without these zeros; `UNKNOWN_LENGTH` while it goes on.
            caches: As `layout` lists them.

        Returns:
            The last hidden state (B, c, D), all of them (1 + L, B, c, D), the frames of these that there are (B,): the
            first ones; and the caches of the next step.
        """
        given = dict(zip(self.layout.caches, caches, strict=True))
        made: dict[str, Tensor] = {"steps": given["steps"] + 1}
        # The first frame that the samples give, and that of the chunk that can be computed now.
        chunk = self.size * (given["steps"] - self.layout.lead_steps)
        first, ends = chunk + self.right, self._frames(lengths)
        if self.level is not None:
            number = torch.arange(samples.shape[1], device=samples.device) + self.layout.overlap_samples
            index = number + self.layout.step_samples * first[:, None]
            samples, made["level"] = self.level(samples * (index >= 0), given["level"], index)
        samples = torch.cat([given["overlap"], samples], 1)
        made["overlap"] = samples[:, -self.layout.overlap_samples :]
        encoder: Any = self.encoder
        x = encoder.feature_projection(self.feature_extractor(samples, None)[0])
        there = self._there(first, self.size, ends)
        # What is no frame may be anything, NaN included.
        x = torch.where(there[..., None], x, torch.zeros_like(x))
        if "features" in given:
            x = torch.cat([given["features"], x], 1)
            made["features"] = x[:, self.size :]
        window, embedded = x[:, self.kernel // 2 :], self._positions(x)
        seen = self._there(chunk - self.left, self.left + self.size + self.right, ends)
        mask = _CLOSED * (~seen).to(x.dtype)[:, None, None]
        last, states = self._layers(window, window + embedded, mask, given, made)
        frames = (ends - chunk).clamp(0, self.size) * (chunk >= 0)
        return last, states, frames, *(made[name] for name in self.layout.caches)

    def _layers(
        self, window: Tensor, x: Tensor, mask: Tensor, given: dict[str, Tensor], made: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The last state of the chunk (B, c, D), and all (1 + L, B, c, D). window: layer 0; x: with its positions."""
        transformer: Any = self.encoder.transformer  # type: ignore[union-attr]
        states = [window]
        x = transformer.layer_norm(x) if transformer.layer_norm_first else x
        for number, layer in enumerate(transformer.layers):
            names = (f"keys_{number}", f"values_{number}")
            attended = layer.layer_norm(x) if layer.layer_norm_first else x
            if isinstance(layer.attention, CachedAttention):
                kept = tuple(given[name] for name in names if name in given)
                attended, kept = layer.attention(attended, mask, self.bias, kept)
                made.update(zip(names, kept, strict=False))
            else:
                attended, _ = layer.attention(attended)
            x = x + attended
            if layer.layer_norm_first:
                x = x + layer.feed_forward(layer.final_layer_norm(x))
            else:
                x = layer.layer_norm(x)
                x = layer.final_layer_norm(x + layer.feed_forward(x))
            states.append(x)
        stacked = torch.stack(states)[:, :, : self.size]
        last = stacked[-1]
        return last if transformer.layer_norm_first else transformer.layer_norm(last), stacked

    def _positions(self, x: Tensor) -> Tensor:
        """The positional convolution: (B, K // 2 + R, D) -> (B, R, D)."""
        padded = nn.functional.pad(x.transpose(1, 2), (0, self.kernel - 1 - self.kernel // 2))
        embedded = nn.functional.conv1d(padded, self.position_weight, self.position_bias, groups=self.groups)
        return nn.functional.gelu(embedded).transpose(1, 2)

    def _frames(self, lengths: Tensor) -> Tensor:
        """Samples (B,) -> frames (B,)."""
        for kernel, stride in self.kernels:
            lengths = torch.div(lengths - kernel, stride, rounding_mode="floor") + 1
        return lengths.clamp_min(0)

    def _there(self, first: Tensor, count: int, ends: Tensor) -> Tensor:
        """(B, count), whether a frame from `first` (B,) on is one of its stream's."""
        place = first[:, None] + torch.arange(count, device=first.device)
        return (place >= 0) & (place < ends[:, None])
