"""The attention that pruning leaves. The file stands alone: its text goes along where an instance is pickled."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SlimMultiheadAttention(nn.MultiheadAttention):
    """Multi-head attention with its head width on its own: `num_heads * head_dim` need not be `embed_dim`.

    Takes the place of an nn.MultiheadAttention once some of its weights have been cut, with the same parameters, call
    and results. Removal makes it by changing the module's class. It can be scripted, as torch's own.

    Legend: N batch, L queries, S keys, E features, h heads, d head_dim.
    """

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
        batched = query.dim() == 3
        query, key, value = (
            self._batch_first(query, batched),
            self._batch_first(key, batched),
            self._batch_first(value, batched),
        )
        if key_padding_mask is not None and not batched:
            key_padding_mask = key_padding_mask[None]
        q, k, v = self._project(query, key, value)
        bias_k, bias_v = self.bias_k, self.bias_v
        if bias_k is not None and bias_v is not None:
            k = torch.cat([k, self._split(bias_k).expand(k.shape[0], -1, -1, -1)], dim=2)
            v = torch.cat([v, self._split(bias_v).expand(v.shape[0], -1, -1, -1)], dim=2)
        if self.add_zero_attn:
            k, v = F.pad(k, [0, 0, 0, 1]), F.pad(v, [0, 0, 0, 1])
        bias = self._mask(q, k, key_padding_mask, attn_mask)
        dropout = self.dropout if self.training else 0.0
        weights: Tensor | None = None
        if need_weights:
            scores = q @ k.transpose(-1, -2) * self.head_dim**-0.5
            shares = F.dropout(torch.softmax(scores if bias is None else scores + bias, dim=-1), dropout)
            heads = shares @ v
            weights = shares.mean(1) if average_attn_weights else shares
        else:
            heads = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
        out = self.out_proj(heads.transpose(1, 2).flatten(2))
        if not batched:
            return out[0], None if weights is None else weights[0]
        return out if self.batch_first else out.transpose(0, 1), weights

    def _batch_first(self, x: Tensor, batched: bool) -> Tensor:
        if not batched:
            return x[None]
        return x if self.batch_first else x.transpose(0, 1)

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of each head, (N, h, L or S, d)."""
        if self.in_proj_weight is not None:
            of_q, of_k, of_v = self.in_proj_weight.chunk(3)
        else:
            of_q, of_k, of_v = self.q_proj_weight, self.k_proj_weight, self.v_proj_weight
        more_q: Tensor | None = None
        more_k: Tensor | None = None
        more_v: Tensor | None = None
        if self.in_proj_bias is not None:
            more_q, more_k, more_v = self.in_proj_bias.chunk(3)
        q, k, v = F.linear(query, of_q, more_q), F.linear(key, of_k, more_k), F.linear(value, of_v, more_v)
        return self._split(q), self._split(k), self._split(v)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, [-1, self.head_dim]).transpose(1, 2)

    def _mask(self, q: Tensor, k: Tensor, padding: Tensor | None, mask: Tensor | None) -> Tensor | None:
        """Both masks as one addend of the scores, (N, h, L, S) or broadcastable to it; q and k: (N, h, L or S, d)."""
        bias: Tensor | None = None
        if mask is not None:
            bias = _additive(mask, q)
            # A mask for each head comes as (N * h, L, S).
            bias = bias.view(q.shape[0], -1, bias.shape[1], bias.shape[2]) if bias.dim() == 3 else bias
        if padding is not None:
            extra = _additive(padding, q)[:, None, None]
            bias = extra if bias is None else bias + extra
        if bias is None:
            return None
        # The positions that `add_bias_kv` and `add_zero_attn` have added are open to all.
        missing = k.shape[-2] - bias.shape[-1]
        return F.pad(bias, [0, missing]) if missing else bias


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape, dtype=like.dtype, device=mask.device).masked_fill(mask, float("-inf"))
    return mask.to(like.dtype)
