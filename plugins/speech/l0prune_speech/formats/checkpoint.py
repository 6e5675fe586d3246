"""What every format is read into and written from: a configuration and tensors under one set of names."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.nn.utils import parametrize

from l0prune import DataError
from l0prune_speech.modules import SpeechEncoder, build_encoder, slim_config

FAMILIES = ("hubert", "wav2vec2", "wavlm")
RELATIVE_BIAS = "encoder.transformer.rel_attn_embed.weight"
FIRST_LAYER_BIAS = "encoder.transformer.layers.0.attention.rel_attn_embed.weight"
"""Where other implementations keep it."""
CHANNEL_SCALE = "feature_extractor.dummy_weight"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """An encoder as a file holds it, dense or pruned."""

    config: Mapping[str, Any]
    """As `build_encoder` takes it, with `family`."""
    tensors: Mapping[str, Tensor]
    """By the names of `SpeechEncoder.state_dict()`."""
    notes: tuple[str, ...] = ()
    """What was left out or supplied on the way, for the user."""
    said: Mapping[str, str] = field(default_factory=dict)
    """What the format calls a configuration key, where it has a name of its own."""


def from_encoder(encoder: SpeechEncoder) -> Checkpoint:
    """The checkpoint of an encoder, dense or pruned."""
    config = slim_config(encoder)
    return Checkpoint(config={**config, "family": family(config)}, tensors=encoder.state_dict())


def to_encoder(checkpoint: Checkpoint, where: object) -> SpeechEncoder:
    """The encoder of a checkpoint, in evaluation mode, float32.

    Args:
        checkpoint: What was read.
        where: The file, for messages.

    Raises:
        DataError: The configuration makes no encoder, or its tensors are others than those of the checkpoint.
    """
    try:
        encoder = build_encoder(checkpoint.config)
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise DataError("no encoder has this configuration", where=where, got=_line(error)) from error
    expected, tensors = encoder.state_dict(), checkpoint.tensors
    for name in expected:
        if name in tensors and tensors[name].shape != expected[name].shape:
            key, value = _key(name, checkpoint)
            raise DataError(
                "config contradicts its tensors",
                where=where,
                got=f"{name} of shape {list(tensors[name].shape)}",
                expected=f"{list(expected[name].shape)}, for {key} = {value}",
            )
    missing, left = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or left:
        key, value = _key((missing or left)[0], checkpoint)
        raise DataError(
            "the tensors do not fit its config",
            where=where,
            got=f"missing: {listed(missing)}; left over: {listed(left)}",
            expected=f"those for {key} = {value}",
        )
    encoder.load_state_dict(dict(tensors))
    return encoder.float().eval()


def folded(checkpoint: Checkpoint) -> SpeechEncoder:
    """The encoder with weight normalisation folded into its weights, for inference alone."""
    # Built anew: what removes a parametrization from a copy takes it from the original's class too.
    encoder = to_encoder(checkpoint, "the network to fold").requires_grad_(False)
    for module in encoder.modules():
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight")
    return encoder


def family(config: Mapping[str, Any]) -> str:
    """hubert, wav2vec2 or wavlm; hubert where the configuration leaves it open."""
    return "wavlm" if config.get("encoder_num_buckets") is not None else config.get("family", "hubert")


def listed(names: Iterable[str], most: int = 6) -> str:
    """A few names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more


def renamed(tensors: Mapping[str, Tensor], *rules: tuple[str, str]) -> dict[str, Tensor]:
    """Tensors under other names.

    Args:
        tensors: By their old names.
        rules: Regular expressions and their replacements, applied in order.
    """
    names = {}
    for old, tensor in tensors.items():
        new = old
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        names[new] = tensor
    return names


PARAMETRIZED = (
    (r"pos_conv_embed\.conv\.weight_g$", "pos_conv_embed.conv.parametrizations.weight.original0"),
    (r"pos_conv_embed\.conv\.weight_v$", "pos_conv_embed.conv.parametrizations.weight.original1"),
)
"""From the names of `torch.nn.utils.weight_norm` to those of its successor."""
WEIGHT_NORMED = (
    (r"pos_conv_embed\.conv\.parametrizations\.weight\.original0$", "pos_conv_embed.conv.weight_g"),
    (r"pos_conv_embed\.conv\.parametrizations\.weight\.original1$", "pos_conv_embed.conv.weight_v"),
)
"""Back again."""

_KEYS = (
    (r"conv_layers\.\d+\.conv\.bias", "extractor_conv_bias"),
    (r"conv_layers\.\d+\.layer_norm", "extractor_mode"),
    (r"conv_layers\.|feature_projection\.layer_norm|dummy_weight", "extractor_conv_layer_config"),
    (r"pos_conv_embed.*(weight_v|original1)", "encoder_pos_conv_groups"),
    (r"pos_conv_embed.*(weight_g|original0)", "encoder_pos_conv_kernel"),
    (r"rel_attn_embed", "encoder_num_buckets"),
    (r"gru_rel_pos|attention", "encoder_num_heads"),
    (r"feed_forward", "encoder_ff_interm_features"),
)
"""What decides about a tensor; the residual width, if nothing here."""


def _key(tensor: str, checkpoint: Checkpoint) -> tuple[str, Any]:
    """The configuration key that a tensor's presence or shape hangs on, as the format calls it, and its value."""
    config = checkpoint.config
    layer = re.search(r"transformer\.layers\.(\d+)\.", tensor)
    found = next((key for pattern, key in _KEYS if re.search(pattern, tensor)), "encoder_embed_dim")
    if layer and not _has_layer(checkpoint, int(layer[1])):
        found = "encoder_num_layers"
    value = config.get(found)
    if found == "encoder_num_heads" and "encoder_remaining_heads" in config:
        found, value = "encoder_remaining_heads", config["encoder_remaining_heads"]
    return checkpoint.said.get(found, found), value


def _has_layer(checkpoint: Checkpoint, layer: int) -> bool:
    """Whether both the configuration and the tensors know a layer."""
    there = any(name.startswith(f"encoder.transformer.layers.{layer}.") for name in checkpoint.tensors)
    return there and layer < checkpoint.config["encoder_num_layers"]


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
