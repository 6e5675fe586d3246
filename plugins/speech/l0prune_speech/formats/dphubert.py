"""DPHuBERT's `.pth`: a dictionary of `state_dict` and `config`, with a width for each layer.

Source: the published implementation of arXiv 2305.17651.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from l0prune import DataError
from l0prune_speech.formats.checkpoint import (
    CHANNEL_SCALE,
    FIRST_LAYER_BIAS,
    PARAMETRIZED,
    RELATIVE_BIAS,
    WEIGHT_NORMED,
    Checkpoint,
    family,
    renamed,
    to_encoder,
)
from l0prune_speech.formats.fit import named_tensors
from l0prune_speech.formats.pickled import read_pickled
from l0prune_speech.formats.registry import Format, Run, register_format
from l0prune_speech.formats.source import Source

PRUNE_FLAGS = (
    "extractor_prune_conv_channels",
    "encoder_prune_attention_heads",
    "encoder_prune_attention_layer",
    "encoder_prune_feed_forward_intermediate",
    "encoder_prune_feed_forward_layer",
)
_DEEPEST = 1000
"""No network has more layers."""
DIARIZEN_PREFIX = "wavlm_model."
_SHARED = (
    "extractor_mode",
    "extractor_conv_bias",
    "encoder_embed_dim",
    "encoder_projection_dropout",
    "encoder_pos_conv_kernel",
    "encoder_pos_conv_groups",
    "encoder_num_layers",
    "encoder_attention_dropout",
    "encoder_ff_interm_dropout",
    "encoder_dropout",
    "encoder_layer_norm_first",
    "encoder_layer_drop",
)
_POSITIONS = ("encoder_num_buckets", "encoder_max_distance")


def from_dphubert(content: Mapping[str, Any], where: object) -> Checkpoint:
    """Read a checkpoint of DPHuBERT, or of DiariZen.

    Args:
        content: `state_dict`, `config`.
        where: The file, for messages.

    Raises:
        DataError: The config lacks something or contradicts itself.
    """
    state, config = named_tensors(content["state_dict"], where), content["config"]
    notes = []
    if any(name.startswith(DIARIZEN_PREFIX) for name in state):
        others = [name for name in state if not name.startswith(DIARIZEN_PREFIX)]
        notes += [f"left out what is not {DIARIZEN_PREFIX[:-1]}: {len(others)} tensors"] if others else []
        state = {name.removeprefix(DIARIZEN_PREFIX): tensor for name, tensor in state.items() if name not in others}
    try:
        ours = _from_config(config)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        got = f"no {error}" if isinstance(error, KeyError) else error
        raise DataError("config of a DPHuBERT checkpoint is not whole", where=where, got=got) from error
    tensors = renamed(state, *PARAMETRIZED)
    if FIRST_LAYER_BIAS in tensors:
        tensors[RELATIVE_BIAS] = tensors.pop(FIRST_LAYER_BIAS)
    aux = [name for name in tensors if name.startswith("aux.")]
    if aux:
        notes.append("left out the transcription head")
        tensors = {name: tensor for name, tensor in tensors.items() if name not in aux}
    scale = tensors.get(CHANNEL_SCALE)
    if scale is not None and bool((scale == 1).all()):
        del tensors[CHANNEL_SCALE]
    ours["extractor_channel_scale"] = CHANNEL_SCALE in tensors
    said = {key: (key, value) for key, value in config.items()}
    # What is left of the heads, it says by their number.
    said |= {"encoder_remaining_heads": said["encoder_num_heads"]} if "encoder_num_heads" in said else {}
    return Checkpoint(config=ours, tensors=tensors, notes=tuple(notes), said=said)


def _from_config(config: Mapping[str, Any]) -> dict[str, Any]:
    depth = int(config["encoder_num_layers"])
    if not 0 < depth <= _DEEPEST:
        raise ValueError(f"encoder_num_layers = {depth}")
    ours = {key: config[key] for key in _SHARED}
    ours["extractor_conv_layer_config"] = [tuple(shape) for shape in config["extractor_conv_layer_config"]]
    ours["normalize_waveform"] = bool(config.get("normalize_waveform", False))
    ours["aux_num_out"] = None
    if "encoder_num_buckets" in config:
        ours |= {key: config[key] for key in _POSITIONS}
        totals = {*_each(config["encoder_total_num_heads"], depth)}
        if len(totals) != 1:
            raise ValueError(f"encoder_total_num_heads {sorted(totals)}, expected one number")
        ours["encoder_num_heads"] = totals.pop()
        heads = [list(layer) for layer in config["encoder_remaining_heads"]]
    else:
        width = config.get("encoder_head_dim")
        counts = _each(config["encoder_num_heads"], depth)
        total = ours["encoder_num_heads"] = ours["encoder_embed_dim"] // width if width else max(counts)
        if max(counts) > total or ours["encoder_embed_dim"] % total:
            raise ValueError(f"up to {max(counts)} heads for encoder_embed_dim = {ours['encoder_embed_dim']}")
        heads = [list(range(count)) for count in counts]
    widths = _each(config["encoder_ff_interm_features"], depth)
    attends, feeds = (_each(config.get(f"encoder_use_{name}", True), depth) for name in ("attention", "feed_forward"))
    heads = [left if there else [] for left, there in zip(heads, attends, strict=True)]
    widths = [width if there else 0 for width, there in zip(widths, feeds, strict=True)]
    if any(left != list(range(ours["encoder_num_heads"])) for left in heads):
        ours["encoder_remaining_heads"] = heads
    ours["encoder_ff_interm_features"] = widths[0] if len({*widths}) == 1 and widths[0] else widths
    return {**ours, "family": family(ours)}


def _each(value: Any, depth: int) -> list[Any]:
    """A value for each layer."""
    values = list(value) if isinstance(value, Sequence) else [value] * depth
    if len(values) != depth:
        raise ValueError(f"{len(values)} values for {depth} layers")
    return values


def to_dphubert(checkpoint: Checkpoint, path: Path, _card: str = "") -> list[str]:
    """Write a file that DPHuBERT's model class loads strictly; returns what had to be supplied."""
    content, notes = published(checkpoint)
    content["state_dict"] = renamed(content["state_dict"], *WEIGHT_NORMED)
    torch.save(content, path)
    return notes


def published(checkpoint: Checkpoint) -> tuple[dict[str, Any], list[str]]:
    """`state_dict` and `config` as the published classes have them, and what had to be supplied.

    The positional convolution keeps the names of `torch.nn.utils.parametrizations.weight_norm`.
    """
    ours, tensors = checkpoint.config, dict(checkpoint.tensors)
    depth, total = ours["encoder_num_layers"], ours["encoder_num_heads"]
    heads = [list(left) for left in ours.get("encoder_remaining_heads", [range(total)] * depth)]
    widths = _each(ours["encoder_ff_interm_features"], depth)
    config = {key: ours[key] for key in _SHARED}
    notes: list[str] = []
    if family(ours) == "wavlm":
        if not heads[0]:
            heads[0] = [0]
            tensors |= _silent_head(ours, tensors)
            notes.append(
                "the first layer has no attention, which this format needs: gave it one head that adds nothing"
            )
        tensors[FIRST_LAYER_BIAS] = tensors.pop(RELATIVE_BIAS)
        config |= {key: ours[key] for key in _POSITIONS}
        config |= {"encoder_total_num_heads": [total] * depth, "encoder_remaining_heads": heads}
    else:
        config |= {"encoder_num_heads": [len(left) for left in heads]}
        config |= {"encoder_head_dim": ours["encoder_embed_dim"] // total}
    channels = ours["extractor_conv_layer_config"][-1][0]
    tensors.setdefault(CHANNEL_SCALE, torch.ones(channels))
    config |= {
        "extractor_conv_layer_config": [tuple(shape) for shape in ours["extractor_conv_layer_config"]],
        "encoder_use_attention": [bool(left) for left in heads],
        "encoder_use_feed_forward": [bool(width) for width in widths],
        "encoder_ff_interm_features": widths,
        "aux_num_out": None,
        "normalize_waveform": bool(ours.get("normalize_waveform", False)),
        **dict.fromkeys(PRUNE_FLAGS, False),
    }
    return {"state_dict": tensors, "config": config}, notes


def _silent_head(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a first attention with one head whose output projection is zero."""
    width, total = config["encoder_embed_dim"], config["encoder_num_heads"]
    head = width // total
    path = "encoder.transformer.layers.0.attention"
    like = tensors[RELATIVE_BIAS]
    shapes = {f"{name}_proj": [(head, width), (head,)] for name in "kvq"}
    shapes |= {"out_proj": [(width, head), (width,)], "gru_rel_pos_linear": [(8, head), (8,)]}
    made = {f"{path}.gru_rel_pos_const": like.new_ones(1, total, 1, 1)}
    for name, (weight, bias) in shapes.items():
        made |= {f"{path}.{name}.weight": like.new_zeros(weight), f"{path}.{name}.bias": like.new_zeros(bias)}
    return made


def open_pickled(path: Path) -> Run:
    """A pickled student as its users open it: hidden states of waveforms."""
    encoder = to_encoder(from_dphubert(read_pickled(path), path), path)
    return lambda waveforms, lengths: encoder.hidden_states(waveforms, None, lengths)


def _claims(source: Source) -> bool:
    # An s3prl export of ours has the same keys, and says of which family it is.
    return source.holds(state_dict=Mapping, config=Mapping) and "family" not in source.content["config"]


register_format(
    Format(
        name="dphubert",
        reads="a .pth of DPHuBERT or a .bin of DiariZen (state_dict and config)",
        claims=_claims,
        read=lambda source: from_dphubert(source.content, source.path),
        holds="DPHuBERT's checkpoint; a first WavLM layer without attention gets one head that adds nothing",
        suffix=".pth",
        write=to_dphubert,
        open=open_pickled,
        opened_by="l0prune's own reader, as DPHuBERT is no package",
    )
)
