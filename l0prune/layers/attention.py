"""nn.MultiheadAttention whose heads, or whose input features, are cut."""

from torch import nn

from l0prune.layers.registry import Layer, register
from l0prune.layers.slim_attention import SlimMultiheadAttention
from l0prune.support import carry_source, refuse_fused_attention


def adopt_attention(module: nn.MultiheadAttention) -> None:
    """Give an attention, whose tensors have been cut, the class that runs it."""
    for name, value in _sizes(module).items():
        setattr(module, name, value)
    module.__class__ = SlimMultiheadAttention
    # nn.TransformerEncoderLayer has a fused kernel, which takes d = E / h.
    refuse_fused_attention(module)


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
        cut=lambda module, stays: adopt_attention(module),
    ),
)
carry_source(SlimMultiheadAttention)
