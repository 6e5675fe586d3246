"""nn.MultiheadAttention whose heads, or whose input features, have been cut."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from l0prune.errors import PlanError
from l0prune.layers.registry import Layer, register
from l0prune.support import refuse_fused_attention


class SlimMultiheadAttention(nn.MultiheadAttention):
    """Multi-head attention with its head width on its own: `num_heads * head_dim` need not be `embed_dim`.

    Takes the place of an nn.MultiheadAttention once some of its weights have been cut, with the same parameters, call
    and results. Removal makes it by changing the module's class.

    Legend: N batch, L queries, S keys, E features, h heads, d head_dim.
    """

    @staticmethod
    def check(module: nn.MultiheadAttention) -> None:
        """Check that a module can be cut.

        Raises:
            PlanError: It has learned bias positions, `add_bias_kv`.
        """
        if module.bias_k is not None:
            raise PlanError("cannot cut nn.MultiheadAttention with add_bias_kv", hint="leave it out of the groups")

    @classmethod
    def adopt(cls, module: nn.MultiheadAttention) -> None:
        """Turn a module, whose tensors have been cut, into this class."""
        for name, value in _sizes(module).items():
            setattr(module, name, value)
        module.__class__ = cls
        # nn.TransformerEncoderLayer has a fused kernel, which takes d = E / h.
        refuse_fused_attention(module)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As nn.MultiheadAttention: (N, L, E) with `batch_first`, else (L, N, E), or (L, E) without a batch."""
        batched = query.ndim == 3
        query, key, value = (self._batch_first(x, batched) for x in (query, key, value))
        if key_padding_mask is not None and not batched:
            key_padding_mask = key_padding_mask[None]
        q, k, v = (x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for x in self._project(query, key, value))
        if self.add_zero_attn:
            k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
        bias = self._mask(q, k, key_padding_mask, attn_mask)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.transpose(-1, -2) * self.head_dim**-0.5
            weights = F.dropout(torch.softmax(scores if bias is None else scores + bias, dim=-1), dropout)
            heads = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            heads = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
        out = self.out_proj(heads.transpose(1, 2).flatten(2))
        if not batched:
            return out[0], None if weights is None else weights[0]
        return (out if self.batch_first else out.transpose(0, 1)), weights

    def _batch_first(self, x: Tensor, batched: bool) -> Tensor:
        if not batched:
            return x[None]
        return x if self.batch_first else x.transpose(0, 1)

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        biases: Any = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        if self.in_proj_weight is not None:
            weights: Any = self.in_proj_weight.chunk(3)
        else:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        return [F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True)]

    def _mask(self, q: Tensor, k: Tensor, padding: Tensor | None, mask: Tensor | None) -> Tensor | None:
        """Both masks as one addend of the scores, (N, h, L, S) or broadcastable to it; q and k: (N, h, L or S, d)."""
        bias = None
        if mask is not None:
            bias = _additive(mask, q.dtype)
            # A mask for each head comes as (N * h, L, S).
            bias = bias.view(len(q), -1, *bias.shape[1:]) if bias.ndim == 3 else bias
        if padding is not None:
            extra = _additive(padding, q.dtype)[:, None, None]
            bias = extra if bias is None else bias + extra
        # The position that `add_zero_attn` has added is open to all.
        missing = 0 if bias is None else k.shape[-2] - bias.shape[-1]
        return F.pad(bias, (0, missing)) if bias is not None and missing else bias


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype is torch.bool:
        return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(mask, float("-inf"))
    return mask.to(dtype)


def _sizes(module: nn.MultiheadAttention) -> dict[str, int]:
    packed = module.in_proj_weight is not None
    rows = module.in_proj_weight.shape[0] // 3 if packed else len(module.q_proj_weight)
    keys, values = (module.in_proj_weight,) * 2 if packed else (module.k_proj_weight, module.v_proj_weight)
    return {
        "num_heads": rows // module.head_dim,
        "embed_dim": module.out_proj.weight.shape[0],
        "kdim": keys.shape[1],
        "vdim": values.shape[1],
    }


register(
    nn.MultiheadAttention,
    Layer(
        units={("in_proj_weight", 0): "unit", ("q_proj_weight", 0): "unit"},
        sizes=_sizes,
        # Its output projection's weight is read past that layer's forward.
        inner=nn.Module.children,
        check=SlimMultiheadAttention.check,
        cut=lambda module, stays: SlimMultiheadAttention.adopt(module),
    ),
)
