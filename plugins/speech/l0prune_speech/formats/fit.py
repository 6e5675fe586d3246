"""Whether a checkpoint's tensors are those that its configuration asks for; what contradicts what, if not."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from l0prune import DataError, listed
from l0prune.support import check_finite, check_kinds, without_values
from l0prune_speech.encoder import build_encoder

Said = Mapping[str, tuple[str, Any]]
"""What a file calls a configuration key, and the value there."""
_LAYER = re.compile(r"encoder\.transformer\.layers\.(\d+)\.")
_REFUSALS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What torch, torchaudio and Python raise over a setting that makes no sense."""
_SHAPES = (
    (r"conv_layers\.|feature_projection\.layer_norm|dummy_weight", "extractor_conv_layer_config"),
    (r"pos_conv_embed.*(weight_v|original1)", "encoder_pos_conv_groups"),
    (r"pos_conv_embed.*(weight_g|original0)", "encoder_pos_conv_kernel"),
    (r"rel_attn_embed", "encoder_num_buckets"),
    (r"gru_rel_pos|attention", "encoder_remaining_heads"),
    (r"gru_rel_pos|attention", "encoder_num_heads"),
    (r"feed_forward", "encoder_ff_interm_features"),
)
"""What decides about a tensor's shape, where the configuration has it; the residual width, if nothing here."""
_PRESENCE = (
    (r"conv_layers\.\d+\.conv\.bias", "extractor_conv_bias"),
    (r"conv_layers\.\d+\.layer_norm", "extractor_mode"),
    (r"attention", "encoder_use_attention"),
    (r"feed_forward", "encoder_use_feed_forward"),
)
"""What decides whether a tensor is there at all."""


def check_fit(config: Mapping[str, Any], tensors: Mapping[str, Tensor], said: Said, where: object) -> None:
    """Compare tensors with a configuration; nothing is allocated before they are known to fit.

    Args:
        config: As `build_encoder` takes it.
        tensors: By the names of `SpeechEncoder.state_dict()`.
        said: Keys and values as the file has them, where they differ.
        where: The file, for messages.

    Raises:
        DataError: The configuration makes no encoder, or its tensors are others, quantised or not finite.
    """
    stated = {key: (key, value) for key, value in config.items()} | dict(said)
    _check_depth(tensors, *stated.get("encoder_num_layers", ("encoder_num_layers", "none")), where)
    try:
        _check_shares(config)
        with without_values():
            expected = build_encoder(config).state_dict()
    except _REFUSALS as error:
        got = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise DataError("no encoder has this configuration", where=where, got=got) from error
    for name in expected:
        if name in tensors and tensors[name].shape != expected[name].shape:
            key, value = _decisive(name, stated, _SHAPES)
            raise DataError(
                "config contradicts its tensors",
                where=where,
                got=f"{name} of shape {list(tensors[name].shape)}",
                expected=f"{list(expected[name].shape)}, for {key} = {value}",
            )
    missing, left = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or left:
        key, value = _decisive((missing or left)[0], stated, (*_PRESENCE, *_SHAPES))
        raise DataError(
            "the tensors do not fit its config",
            where=where,
            got=f"missing: {listed(missing)}; left over: {listed(left)}",
            expected=f"those for {key} = {value}",
        )
    check_kinds(tensors, expected, where, DataError)
    check_finite(tensors.items(), where, DataError)


def _check_depth(tensors: Mapping[str, Tensor], key: str, depth: Any, where: object) -> None:
    """Compare the number of layers, before anything is built."""
    found = {int(layer[1]) for layer in map(_LAYER.match, tensors) if layer}
    if not found:
        got = listed(sorted(tensors))
        raise DataError("no tensors of an encoder's layers", where=where, got=got, expected=f"{key} = {depth}")
    if depth != max(found) + 1:
        got = f"tensors of {max(found) + 1} layers"
        raise DataError("config contradicts its tensors", where=where, got=got, expected=f"{key} = {depth}")


def _check_shares(config: Mapping[str, Any]) -> None:
    """Find the probabilities to be such: nothing else looks at them before training."""
    for key, value in config.items():
        if key.endswith(("dropout", "layer_drop")) and not 0 <= value <= 1:
            raise ValueError(f"{key} = {value}")


def _decisive(tensor: str, stated: Said, rules: Iterable[tuple[str, str]]) -> tuple[str, Any]:
    """The setting that a tensor's presence or shape hangs on, as the file calls it, and its value there."""
    matching = (key for pattern, key in rules if re.search(pattern, tensor))
    return stated[next((key for key in matching if key in stated), "encoder_embed_dim")]


def named_tensors(content: Any, where: object) -> dict[str, Tensor]:
    """What a file calls its weights, found to be tensors by name.

    Raises:
        DataError: They are something else, or repeat what their file holds once.
    """
    if not isinstance(content, Mapping):
        raise DataError("not a state dict", where=where, got=type(content).__name__)
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise DataError("not a tensor with a name", where=where, got=f"{name!r}: {type(tensor).__name__}")
        plain = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
        # Strides of 0 make a tensor of any size out of one number.
        if not plain or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise DataError("not a plain tensor", where=where, got=f"{name} of shape {list(tensor.shape)}")
    return dict(content)
