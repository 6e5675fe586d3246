"""torchaudio's own state dict, of its bundles and of teacher files."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from l0prune import DataError
from l0prune.support import parse_json
from l0prune_speech.formats.checkpoint import (
    FIRST_LAYER_BIAS,
    PARAMETRIZED,
    RELATIVE_BIAS,
    Checkpoint,
    family,
    read_safetensors,
    renamed,
)
from l0prune_speech.formats.registry import Format, register_format
from l0prune_speech.formats.source import Source

FILE_FORMAT = "l0prune-speech-teacher"
"""What the metadata of a teacher file call it."""
_FUSED = ".attention.attention.in_proj_"


def from_torchaudio(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Checkpoint:
    """Read a state dict of `torchaudio.models.wav2vec2_model` or `wavlm_model`.

    Args:
        tensors: The state dict.
        config: Arguments of that function, and `normalize_waveform`.
    """
    named: dict[str, Tensor] = {}
    for name, tensor in renamed(tensors, *PARAMETRIZED).items():
        if name == FIRST_LAYER_BIAS:
            named[RELATIVE_BIAS] = tensor
        elif _FUSED in name:
            block, kind = name.split(_FUSED)
            projections = zip("qkv", tensor.chunk(3), strict=True)
            named |= {f"{block}.attention.{letter}_proj.{kind}": part for letter, part in projections}
        else:
            named[name.replace(".attention.attention.", ".attention.")] = tensor
    # A head for transcription plays no part in the representations.
    head = [name for name in named if name.startswith("aux.")]
    kept = {name: tensor for name, tensor in named.items() if name not in head}
    whole = {**config, "aux_num_out": None, "family": family(config)}
    notes = ("left out the transcription head",) if head else ()
    return Checkpoint(config=whole, tensors=kept, notes=notes)


def _claims(source: Source) -> bool:
    return source.metadata is not None and source.metadata.get("format") == FILE_FORMAT


def _read(source: Source) -> Checkpoint:
    metadata = source.metadata or {}
    try:
        config = dict(parse_json(metadata["config"]))
    except (KeyError, TypeError, ValueError) as error:
        got = f"{type(error).__name__}: {error}"
        raise DataError("damaged teacher file", where=source.path, got=got) from error
    config["normalize_waveform"] = metadata.get("normalize_waveform") == "true"
    return from_torchaudio(read_safetensors(source.path), config)


register_format(
    Format(
        name="torchaudio",
        reads=f"a .safetensors of format {FILE_FORMAT}",
        claims=_claims,
        read=_read,
    )
)
