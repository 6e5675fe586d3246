"""Where a teacher comes from: the embedded one, a torchaudio bundle, or a safetensors file of the same format."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from os.path import isfile
from pathlib import Path
from typing import Any
from urllib.error import URLError

import safetensors
from safetensors.torch import load_file

from l0prune import ConfigError, DataError, nearest
from l0prune_speech.modules import SpeechEncoder, build_encoder

EMBEDDED = "embedded"
FILE_FORMAT = "l0prune-speech-teacher"


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A dense pre-trained encoder and what it takes to build it again."""

    name: str
    encoder: SpeechEncoder
    config: Mapping[str, Any]
    """As `build_encoder` takes it."""


def load_teacher(name: str) -> Teacher:
    """Load a teacher in evaluation mode.

    Args:
        name: "embedded", a torchaudio bundle name such as HUBERT_BASE, or the path of a safetensors file.

    Raises:
        ConfigError: There is no such teacher, or its family is not supported.
        DataError: Its weights cannot be read or downloaded, or do not fit.
    """
    if name == EMBEDDED:
        with as_file(files("l0prune_speech") / "assets" / "teacher.safetensors") as path:
            return _from_file(path, name)
    if isfile(name):
        return _from_file(Path(name), name)
    bundles = _bundles()
    if name in bundles:
        return _from_bundle(name, bundles[name])
    hint = nearest(name, [EMBEDDED, *bundles])
    raise ConfigError("no such teacher", where=name, expected="a bundle name or a .safetensors file", hint=hint)


def _bundles() -> dict[str, Any]:
    """torchaudio's bundles of the HuBERT and wav2vec 2.0 families, by name."""
    import torchaudio.pipelines

    found = ((name, getattr(torchaudio.pipelines, name)) for name in torchaudio.pipelines.__all__)
    return {name: bundle for name, bundle in found if getattr(bundle, "_model_type", None) == "Wav2Vec2"}


def _from_bundle(name: str, bundle: Any) -> Teacher:
    config = {**bundle._params, "normalize_waveform": bundle._normalize_waveform}
    encoder = build_encoder(config)
    try:
        encoder.load_state_dict(bundle._get_state_dict({}))
    except (URLError, OSError) as error:
        hint = "download it elsewhere, or give a .safetensors file"
        raise DataError("cannot download the teacher", where=name, got=error, hint=hint) from error
    # A head for transcription plays no part in the representations.
    encoder.aux = None
    return Teacher(name=name, encoder=_ready(encoder), config={**config, "aux_num_out": None})


def _from_file(path: Path, name: str) -> Teacher:
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        if metadata.get("format") != FILE_FORMAT:
            got = metadata.get("format", "none")
            raise DataError("not a teacher file", where=path, got=f"format {got}", expected=f"format {FILE_FORMAT}")
        normalize = metadata.get("normalize_waveform") == "true"
        config = {**json.loads(metadata["config"]), "normalize_waveform": normalize}
        encoder = build_encoder(config)
        encoder.load_state_dict(load_file(path))
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise DataError("damaged teacher file", where=path, got=" ".join(str(error).split())) from error
    except RuntimeError as error:
        raise DataError(
            "teacher's tensors do not fit its config", where=path, got=" ".join(str(error).split())
        ) from error
    return Teacher(name=name, encoder=_ready(encoder), config=config)


def _ready(encoder: SpeechEncoder) -> SpeechEncoder:
    return encoder.float().eval().requires_grad_(False)
