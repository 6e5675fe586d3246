"""DiariZen: the encoder's own `.bin`, as DPHuBERT has it, and the hub's folders of a whole diarization model.

Such a folder has config.toml and a bare pytorch_model.bin, whose WavLM is read off its tensors.

Source: the published implementation of DiariZen (arXiv 2505.24111, 2506.18623), also for `_HEADS`.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from l0prune import DataError
from l0prune_speech.formats.checkpoint import Checkpoint, family
from l0prune_speech.formats.dphubert import DIARIZEN_PREFIX, PRUNE_FLAGS, from_dphubert, open_pickled, published
from l0prune_speech.formats.fit import named_tensors
from l0prune_speech.formats.pickled import read_pickled
from l0prune_speech.formats.registry import Format, register_format
from l0prune_speech.formats.source import Source

_SETTINGS, _WEIGHTS = "config.toml", "pytorch_model.bin"
_LAYER = "encoder.transformer.layers"
_STRIDES = (5, 2, 2, 2, 2, 2, 2)
_MAX_DISTANCE = 800
_HEADS = {
    "wavlm_base_s80_md": "1 6|5 7 8|0 3 9|0 1 4 8 11|6 8|0|7 8 10 11|0 1 4 8|||4 7|5",
    "wavlm_large_s80_md": (
        "1 2 4 5 6|9 10 14|0 1 2 4 5 7|1 4 7 12 13 14|0 2 3 4 13|1 7 13 14 15|11 13 15|2 3 4 8 15|2 5 6 15||0 1|"
        "1 3 5 12||4 7 11|6 9|11|||14|5 15|0 2 8 11 13 15|0 1 3 4 5 6 7 10 13|0 1 3 6 7 9 10 11 12 14|"
        "1 2 3 4 7 13 14 15"
    ),
}
"""The heads that are left in each layer of the published encoders, whose hub folders name them and no more."""


def from_diarizen(folder: Path, weights: Path | None = None) -> Checkpoint:
    """Read the encoder of a diarization model.

    Args:
        folder: Has config.toml.
        weights: By default the folder's pytorch_model.bin.

    Raises:
        DataError: The tensors are not those of such a model, or nothing says which heads are left.
    """
    weights = weights or folder / _WEIGHTS
    tensors = named_tensors(read_pickled(weights), weights)
    encoder = {n.removeprefix(DIARIZEN_PREFIX): t for n, t in tensors.items() if n.startswith(DIARIZEN_PREFIX)}
    try:
        config = _read_off(encoder)
    except (ArithmeticError, LookupError, ValueError) as error:
        got = f"no {error}" if isinstance(error, KeyError) else error
        raise DataError("no WavLM of DiariZen among the tensors", where=weights, got=got) from error
    if any(left != config["encoder_total_num_heads"][0] for left in config["encoder_num_heads"]):
        config["encoder_remaining_heads"] = _heads_left(folder)
    else:
        config["encoder_remaining_heads"] = [list(range(left)) for left in config["encoder_num_heads"]]
    return from_dphubert({"state_dict": tensors, "config": config}, weights)


def _read_off(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the tensors say of their configuration, and what all published encoders of this kind have in common."""
    convs = [tensors[f"feature_extractor.conv_layers.{i}.conv.weight"] for i in range(len(_STRIDES))]
    normed = "feature_extractor.conv_layers.1.layer_norm.weight" in tensors
    width = len(tensors["encoder.feature_projection.projection.weight"])
    depth = 1 + max(int(name.split(".")[3]) for name in tensors if name.startswith(f"{_LAYER}."))
    buckets, total = tensors[f"{_LAYER}.0.attention.rel_attn_embed.weight"].shape
    positional = tensors["encoder.transformer.pos_conv_embed.conv.parametrizations.weight.original1"]
    keys = [tensors.get(f"{_LAYER}.{i}.attention.k_proj.weight") for i in range(depth)]
    inner = [tensors.get(f"{_LAYER}.{i}.feed_forward.intermediate_dense.weight") for i in range(depth)]
    return {
        "extractor_mode": "layer_norm" if normed else "group_norm",
        "extractor_conv_layer_config": [
            (conv.shape[0], conv.shape[2], stride) for conv, stride in zip(convs, _STRIDES, strict=True)
        ],
        "extractor_conv_bias": "feature_extractor.conv_layers.0.conv.bias" in tensors,
        "encoder_embed_dim": width,
        "encoder_projection_dropout": 0.1,
        "encoder_pos_conv_kernel": positional.shape[2],
        "encoder_pos_conv_groups": width // positional.shape[1],
        "encoder_num_layers": depth,
        "encoder_use_attention": [key is not None for key in keys],
        "encoder_use_feed_forward": [up is not None for up in inner],
        "encoder_total_num_heads": [total] * depth,
        "encoder_num_heads": [0 if key is None else len(key) * total // width for key in keys],
        "encoder_num_buckets": buckets,
        "encoder_max_distance": _MAX_DISTANCE,
        "encoder_attention_dropout": 0.1,
        "encoder_ff_interm_features": [0 if up is None else len(up) for up in inner],
        "encoder_ff_interm_dropout": 0.0,
        "encoder_dropout": 0.1,
        # Base and Large differ in all of these together.
        "encoder_layer_norm_first": normed,
        "encoder_layer_drop": 0.1 if normed else 0.05,
        "normalize_waveform": normed,
        "aux_num_out": None,
        **dict.fromkeys(PRUNE_FLAGS, False),
    }


def _heads_left(folder: Path) -> list[list[int]]:
    """Which heads are left in each layer, by what config.toml says of the encoder that the model began with."""
    try:
        source = tomllib.loads((folder / _SETTINGS).read_text(encoding="utf-8"))["model"]["args"]["wavlm_src"]
    except (OSError, KeyError, TypeError, ValueError) as error:
        got = f"no {error}" if isinstance(error, KeyError) else error
        raise DataError("config.toml does not name the encoder", where=folder, got=got) from error
    if str(source).lower() in _HEADS:
        return [[int(head) for head in layer.split()] for layer in _HEADS[source.lower()].split("|")]
    path = folder / str(source)
    if not path.is_file():
        hint = "put the file of the pruned encoder there"
        raise DataError(
            "nothing says which heads are left", where=folder / _SETTINGS, got=f"wavlm_src = {source}", hint=hint
        )
    content = read_pickled(path)
    try:
        return content["config"]["encoder_remaining_heads"]
    except (LookupError, TypeError) as error:
        raise DataError("no pruned encoder of DiariZen", where=path, expected="config and state_dict") from error


def to_diarizen(checkpoint: Checkpoint, path: Path, _card: str = "") -> list[str]:
    """Write a file that DiariZen's model class loads strictly; returns what had to be supplied."""
    content, notes = published(checkpoint)
    content["config"]["use_layerwise_prune"] = False
    torch.save(content, path)
    return notes


def _refuses(checkpoint: Checkpoint) -> str | None:
    kind = family(checkpoint.config)
    return None if kind == "wavlm" else f"an encoder of the family {kind}, where DiariZen builds WavLM alone"


def _claims(source: Source) -> bool:
    if source.has(_SETTINGS, _WEIGHTS):
        return True
    if not (source.folder / _SETTINGS).is_file():
        return False
    if source.path.name == _SETTINGS:
        return (source.folder / _WEIGHTS).is_file()
    return source.is_bare and source.metadata is None and any(n.startswith(DIARIZEN_PREFIX) for n in source.content)


def _read(source: Source) -> Checkpoint:
    whole = source.path.is_dir() or source.path.name == _SETTINGS
    return from_diarizen(source.folder, None if whole else source.path)


register_format(
    Format(
        name="diarizen",
        reads="a folder of DiariZen (config.toml and pytorch_model.bin)",
        claims=_claims,
        read=_read,
        holds="DiariZen's checkpoint, for WavLM alone; otherwise as dphubert",
        suffix=".bin",
        write=to_diarizen,
        open=open_pickled,
        opened_by="l0prune's own reader, as DiariZen is no package",
        refuses=_refuses,
    )
)
