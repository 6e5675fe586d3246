"""WavLM (arXiv 2110.13900): its bare encoder in torchaudio's layout, and with a head by transformers' classes.

transformers hands the weights of its attention to a function of torch, which knows one number of heads. Here the same
is computed from separate projections, so that heads can be pruned.

Legend: B clips, T frames, D width, H heads.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from l0prune import PruneGroup
from l0prune_speech.encoder import RelativePositionBias, WavLMAttention, head_group
from l0prune_speech.families.registry import register_family
from l0prune_speech.families.transformers_network import transformers_family


class HeadedAttention(WavLMAttention):
    """Attention with the parameters of transformers', by their names, and its interface.

    Args:
        plain: transformers' own.
    """

    def __init__(self, plain: Any) -> None:
        super().__init__(plain.embed_dim, plain.num_heads, plain.dropout)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj", "gru_rel_pos_linear", "gru_rel_pos_const"):
            setattr(self, name, getattr(plain, name))
        if hasattr(plain, "rel_attn_embed"):
            self.rel_attn_embed = RelativePositionBias(plain.num_buckets, plain.num_heads, plain.max_distance)
            self.rel_attn_embed.weight = plain.rel_attn_embed.weight

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_bias: Tensor | None = None,
        index: int = 0,
        **_given: Any,
    ) -> tuple[Tensor, None, Tensor | None]:
        """Attend.

        Args:
            hidden_states: (B, T, D).
            attention_mask: (B, T), 1 where a frame is not padding.
            position_bias: (1, H, T, T) of all heads of the dense network; the first layer makes it.
            index: Of the layer.

        Returns:
            (B, T, D), no weights, and the position bias.
        """
        if position_bias is None:
            position_bias = self.rel_attn_embed(hidden_states.shape[1])
        mask = None
        if attention_mask is not None:
            padding = attention_mask[:, None, None].ne(1)
            mask = torch.zeros_like(padding, dtype=hidden_states.dtype).masked_fill(padding, -torch.inf)
        output, _ = super().forward(hidden_states, mask, position_bias)
        return output, None, position_bias


def _prepare(model: nn.Module) -> None:
    for path, module in list(model.named_modules()):
        if type(module).__name__ == "WavLMAttention":
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, HeadedAttention(module))


def _groups(model: nn.Module) -> list[PruneGroup]:
    """A group for the heads of each layer, of which one stays: the first layer's bias is every layer's."""
    paths = [path for path, module in model.named_modules() if isinstance(module, HeadedAttention)]
    return [replace(head_group(model, path), bypass=None, alive_with=()) for path in paths]


register_family(
    replace(
        transformers_family(
            "wavlm", "WavLM: encoder, CTC, classes, x-vectors, frames", prepare=_prepare, groups=_groups
        ),
        layout="torchaudio",
    )
)
