"""Where a teacher comes from: the embedded one, a bundle, a hub, or a file or folder whose content tells its format."""

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any
from urllib.error import URLError

import safetensors

import l0prune
from l0prune import ConfigError, DataError, L0PruneError, nearest
from l0prune.support import parse_json
from l0prune_speech.encoder import SpeechEncoder
from l0prune_speech.formats.checkpoint import Checkpoint, to_encoder
from l0prune_speech.formats.dphubert import from_dphubert
from l0prune_speech.formats.fairseq import from_fairseq
from l0prune_speech.formats.huggingface import from_huggingface, read_safetensors
from l0prune_speech.formats.pickled import read_pickled
from l0prune_speech.formats.torchaudio_names import from_torchaudio

EMBEDDED = "embedded"
FILE_FORMAT = "l0prune-speech-teacher"
_EXPECTED = (
    "a bundle name, a Hugging Face directory or hub id, a fairseq .pt, a DPHuBERT .pth, a DiariZen .bin, a teacher's "
    ".safetensors, or a run directory"
)
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_FILES = ("config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json")
_HUB_PICKLES = ("pytorch_model*.bin", "pytorch_model.bin.index.json")
_HEADER = 8
"""Bytes of a safetensors file before its JSON header: the header's length."""


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A pre-trained encoder, dense or pruned, and what it takes to build it again."""

    name: str
    encoder: SpeechEncoder
    """In evaluation mode, float32; one from a run directory remembers its plan."""
    config: Mapping[str, Any]
    """What `build_encoder` makes the network from that the plan, or nothing, was applied to."""
    notes: tuple[str, ...] = ()
    """What was left out or supplied in reading it."""


def load_teacher(name: str, *, also: Iterable[str] = ()) -> Teacher:
    """Load a teacher.

    Args:
        name: "embedded", a torchaudio bundle name such as HUBERT_BASE, the path of a file or folder, or a Hugging Face
            hub id.
        also: Other names that the caller takes, for the hint where there is no such teacher.

    Raises:
        ConfigError: There is no such teacher, or its family is not supported.
        DataError: Its weights cannot be read or downloaded, or do not fit.
    """
    path = Path(name)
    if name == EMBEDDED:
        with as_file(files("l0prune_speech") / "assets" / "teacher.safetensors") as embedded:
            return _made(name, _read_file(embedded), embedded)
    if _is_folder(path):
        return _from_folder(path, name)
    if path.is_file():
        return _made(name, _read_file(path), path)
    bundles = _bundles()
    if name in bundles:
        return _made(name, _from_bundle(name, bundles[name]), name)
    if _HUB_ID.fullmatch(name):
        return _made(name, from_huggingface(_download(name)), name)
    hint = nearest(name, [EMBEDDED, *bundles, *also])
    raise ConfigError("no such teacher", where=name, expected=_EXPECTED, hint=hint)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:
        raise ConfigError("no such teacher", where=path, got=error.strerror, expected=_EXPECTED) from error


def _made(name: str, checkpoint: Checkpoint, where: object) -> Teacher:
    encoder = to_encoder(checkpoint, where).requires_grad_(False)
    return Teacher(name=name, encoder=encoder, config=encoder.config, notes=checkpoint.notes)


def _from_folder(folder: Path, name: str) -> Teacher:
    if (folder / "model.json").is_file() or (folder / "config.toml").is_file():
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            encoder = l0prune.load(folder)
        if not isinstance(encoder, SpeechEncoder):
            raise DataError("not a speech encoder", where=folder, got=type(encoder).__name__)
        notes = tuple(str(warning.message) for warning in said)
        return Teacher(name=name, encoder=encoder.float().requires_grad_(False), config=encoder.config, notes=notes)
    if (folder / "config.json").is_file():
        return _made(name, from_huggingface(folder), folder)
    raise DataError(
        "neither a run nor a Hugging Face directory", where=folder, expected="model.json, or config.json and weights"
    )


def _read_file(path: Path) -> Checkpoint:
    """Read a file of whatever format it proves to be."""
    if _is_safetensors(path):
        return _from_safetensors(path)
    content = read_pickled(path)
    if isinstance(content, Mapping):
        if isinstance(content.get("state_dict"), Mapping) and isinstance(content.get("config"), Mapping):
            return from_dphubert(content, path)
        if isinstance(content.get("model"), Mapping):
            return from_fairseq(content, path)
    keys = ", ".join(map(str, list(content)[:6])) if isinstance(content, Mapping) else type(content).__name__
    expected = "state_dict and config (DPHuBERT, DiariZen), or model and cfg (fairseq, WavLM)"
    hint = (
        "a bare state dict says nothing of heads and strides; a Hugging Face weights file needs its config.json beside"
    )
    raise DataError("not a checkpoint of a known format", where=path, got=keys, expected=expected, hint=hint)


def _is_safetensors(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(_HEADER + 1)
    except OSError as error:
        raise DataError("cannot read", where=path, got=error.strerror) from error
    return start[_HEADER:] == b"{" or path.suffix == ".safetensors"


def _from_safetensors(path: Path) -> Checkpoint:
    """Read a teacher file, or the weights of the Hugging Face directory that the file stands in."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except (safetensors.SafetensorError, OSError) as error:
        raise DataError("damaged teacher file", where=path, got=" ".join(str(error).split())) from error
    if metadata.get("format") == FILE_FORMAT:
        try:
            config = dict(parse_json(metadata["config"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError("damaged teacher file", where=path, got=f"{type(error).__name__}: {error}") from error
        config["normalize_waveform"] = metadata.get("normalize_waveform") == "true"
        return from_torchaudio(read_safetensors(path), config)
    if (path.parent / "config.json").is_file():
        return from_huggingface(path.parent)
    got = f"format {metadata.get('format', 'none')}"
    hint = "Hugging Face weights need their config.json beside"
    raise DataError("not a teacher file", where=path, got=got, expected=f"format {FILE_FORMAT}", hint=hint)


def _bundles() -> dict[str, Any]:
    """torchaudio's bundles of the three families, by name."""
    import torchaudio.pipelines

    found = ((name, getattr(torchaudio.pipelines, name)) for name in torchaudio.pipelines.__all__)
    return {name: bundle for name, bundle in found if getattr(bundle, "_model_type", None) in ("Wav2Vec2", "WavLM")}


def _from_bundle(name: str, bundle: Any) -> Checkpoint:
    try:
        tensors = bundle._get_state_dict({})
    except (URLError, OSError) as error:
        hint = "download it elsewhere, or give a file"
        raise DataError("cannot download the teacher", where=name, got=error, hint=hint) from error
    family = "wav2vec2" if name.startswith(("WAV2VEC2", "VOXPOPULI", "MMS")) else "hubert"
    config = {"family": family, **bundle._params, "normalize_waveform": bundle._normalize_waveform}
    return from_torchaudio(tensors, config)


def _download(name: str) -> Path:
    """The local copy of a hub's repository."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        hint = "pip install 'l0prune[huggingface]', or give a path"
        raise ConfigError("no such file or bundle, and the hub needs huggingface_hub", where=name, hint=hint) from error
    refused = (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError, ValueError, L0PruneError)
    try:
        folder = Path(snapshot_download(name, allow_patterns=list(_HUB_FILES)))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=[*_HUB_FILES, *_HUB_PICKLES]))
    except refused as error:
        got = " ".join(str(error).split())[:200]
        hint = "check name and network, or give a path"
        raise DataError(
            "no such file, and no such model on the Hugging Face hub", where=name, got=got, hint=hint
        ) from error
    return folder
