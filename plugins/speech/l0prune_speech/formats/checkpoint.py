"""What every format is read into and written from: a configuration and tensors under one set of names."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.utils import parametrize

from l0prune import DataError
from l0prune.support import forget_load_hooks
from l0prune_speech.encoder import SpeechEncoder, build_encoder, slim_config
from l0prune_speech.formats.fit import check_fit

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
    said: Mapping[str, tuple[str, Any]] = field(default_factory=dict)
    """What the file calls a configuration key, and the value there, for messages."""
    calibration: Sequence[Tensor] = ()
    """Clips (samples,) on which scales of activations in eight bits are found."""


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
    check_fit(checkpoint.config, checkpoint.tensors, checkpoint.said, where)
    encoder = build_encoder(checkpoint.config)
    encoder.load_state_dict(dict(checkpoint.tensors))
    return encoder.float().eval()


def folded(checkpoint: Checkpoint) -> SpeechEncoder:
    """The encoder with weight normalisation folded into its weights, for inference alone."""
    # Built anew: what removes a parametrization from a copy takes it from the original's class too.
    encoder = to_encoder(checkpoint, "the network to fold").requires_grad_(False)
    for module in encoder.modules():
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight")
            # What reads the names of the old weight norm: a local function, which nothing can pickle.
            forget_load_hooks(module)
    return encoder


def family(config: Mapping[str, Any]) -> str:
    """hubert, wav2vec2 or wavlm; hubert where the configuration leaves it open."""
    return "wavlm" if config.get("encoder_num_buckets") is not None else config.get("family", "hubert")


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file.

    Raises:
        DataError: The file is missing or damaged.
    """
    try:
        return load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise DataError("damaged or missing weights", where=path, got=" ".join(str(error).split())) from error


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
