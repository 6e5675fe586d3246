"""What is known of layers by their class: where they make units, and which of their numbers count them."""

import re
from collections.abc import Mapping

from torch import nn

_HEAD_COUNTS = re.compile(r"(num|n|total)?_?(local_|kv_|key_value_|attn_|attention_)?heads?|nhead", re.IGNORECASE)
_WIDTHS = re.compile(
    r"(all_head|split|hidden|embedding)_size|(attn|inner|hidden|embed|embedding|inner_kv_proj|q|kv|model|proj)?_?dim|d_model|width|"
    r"(num_)?channels|num_features",
    re.IGNORECASE,
)


def layer_units(modules: Mapping[str, nn.Module]) -> dict[tuple[str, int], str]:
    """The dimensions on which layers make units, with the kind of unit."""
    found: dict[tuple[str, int], str] = {}
    for path, module in modules.items():
        for (name, dim), kind in _makes(module).items():
            parts = [path, name] if path else [name]
            found[".".join(parts), dim] = kind
            # Where nn.utils.parametrizations keeps what weight_norm and spectral_norm make the weight of.
            for original in ("original", "original1"):
                found[".".join([*parts[:-1], "parametrizations", name, original]), dim] = kind
    return found


def _makes(module: nn.Module) -> dict[tuple[str, int], str]:  # noqa: PLR0911 - one for each kind of layer
    match module:
        case nn.Conv1d() | nn.Conv2d() | nn.Conv3d():
            return {("weight", 0): "conv"}
        case nn.ConvTranspose1d() | nn.ConvTranspose2d() | nn.ConvTranspose3d():
            depthwise = 1 < module.groups == module.in_channels
            return {("weight", 0 if depthwise else 1): "conv"}
        case nn.Embedding() | nn.EmbeddingBag():
            return {("weight", 1): "embedding"}
        case nn.RNNBase():
            return {(f"weight_hh_l{n}", 0): "hidden" for n in range(module.num_layers)}
        case nn.RNNCellBase():
            return {("weight_hh", 0): "hidden"}
        case nn.MultiheadAttention():
            return {("in_proj_weight", 0): "unit", ("q_proj_weight", 0): "unit"}
        case nn.Linear() | nn.Bilinear():
            return {("weight", 0): "unit"}
        case nn.Module(nf=int(), nx=int()):  # transformers' Conv1D
            return {("weight", 1): "unit"}
    return {}


def counting_attributes(module: nn.Module | None, length: int) -> list[str]:
    """Names of a module's own numbers that say how many heads there are, or how wide a dimension is."""
    if module is None or isinstance(module, nn.MultiheadAttention):  # mended as a whole
        return []
    numbers = [name for name, value in vars(module).items() if type(value) is int and value == length]
    return [name for name in numbers if _HEAD_COUNTS.fullmatch(name) or _WIDTHS.fullmatch(name)]
