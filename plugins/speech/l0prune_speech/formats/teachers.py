"""Where a teacher comes from: the embedded one, a bundle, a hub, a run, or a file or folder that some format claims."""

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any
from urllib.error import URLError

import l0prune
from l0prune import ConfigError, DataError, L0PruneError, nearest
from l0prune_speech.encoder import SpeechEncoder
from l0prune_speech.formats.checkpoint import Checkpoint, to_encoder
from l0prune_speech.formats.registry import formats
from l0prune_speech.formats.source import Source
from l0prune_speech.formats.torchaudio_names import from_torchaudio

EMBEDDED = "embedded"
_EXPECTED = 'a path, "embedded", a bundle of torchaudio such as HUBERT_BASE, or a Hugging Face hub id'
_RUN_FILES = ("model.json", "model.safetensors")
_SETTINGS = (".json", ".toml", ".yaml", ".yml")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_FILES = (
    "config.json",
    "config.toml",
    "preprocessor_config.json",
    "processor_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
)
_HUB_PICKLES = ("pytorch_model*.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A pre-trained encoder, dense or pruned, and what it takes to build it again."""

    name: str
    encoder: SpeechEncoder
    """In evaluation mode, float32; one from a run directory remembers its plan."""
    config: Mapping[str, Any]
    """What `build_encoder` makes the network from that the plan, or nothing, was applied to."""
    notes: tuple[str, ...] = ()
    """What was left out, supplied or assumed in reading it."""


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
            return _made(name, read_checkpoint(embedded), embedded)
    if _exists(path):
        run = _run_of(path)
        return _from_run(run, name) if run else _made(name, read_checkpoint(path), path)
    bundles = bundles_by_name()
    if name in bundles:
        return _made(name, _from_bundle(name, bundles[name]), name)
    if _HUB_ID.fullmatch(name):
        return _made(name, read_checkpoint(_download(name)), name)
    hint = nearest(name, [EMBEDDED, *bundles, *also])
    # All of them would be no hint.
    hint = hint if hint.startswith("did you mean") else None
    raise ConfigError("no such teacher", where=_shortened(name), expected=_EXPECTED, hint=hint)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file or folder of whatever format claims it.

    Raises:
        DataError: None does, or it is damaged.
    """
    source, readers = Source(path), [form for form in formats().values() if form.read is not None]
    for form in reversed(readers):
        assert form.claims is not None
        assert form.read is not None
        if form.claims(source):
            return form.read(source)
    expected = ", ".join(sorted(form.reads for form in readers))
    if path.is_dir():
        names = sorted(file.name for file in path.iterdir())
        got = ", ".join(names[:6]) or "nothing"
        raise DataError("no checkpoint of a known format in the folder", where=path, got=got, expected=expected)
    if path.suffix in _SETTINGS:
        raise DataError("a file of settings holds no weights", where=path, hint="give its folder, or the weights")
    if source.refusal is not None:
        raise source.refusal
    hint = None
    if source.is_bare:
        hint = "bare weights say nothing of heads and strides: put the config.json of transformers beside them"
    raise DataError("not a checkpoint of a known format", where=path, got=_seen(source), expected=expected, hint=hint)


def _seen(source: Source) -> str:
    if source.metadata is not None:
        return f"safetensors of format {source.metadata.get('format', 'none')}"
    content = source.content
    return ", ".join(map(str, list(content)[:6])) if isinstance(content, Mapping) else type(content).__name__


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        where = _shortened(str(path))
        raise ConfigError("no such teacher", where=where, got=error.strerror, expected=_EXPECTED) from error


def _shortened(name: str) -> str:
    return name if len(name) <= 200 else f"{name[:200]}..."


def _run_of(path: Path) -> Path | None:
    """The run directory that a path is, or that it is the model of."""
    folder = path.parent if path.name in _RUN_FILES and path.is_file() else path
    if (folder / "model.json").is_file():
        return folder
    # Of a run that has only begun.
    return path if (path / "config.toml").is_file() and not any(path.glob("*.bin")) else None


def _from_run(folder: Path, name: str) -> Teacher:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        encoder = l0prune.load(folder)
    if not isinstance(encoder, SpeechEncoder):
        raise DataError("not a speech encoder", where=folder, got=type(encoder).__name__)
    notes = tuple(str(warning.message) for warning in said)
    return Teacher(name=name, encoder=encoder.float().requires_grad_(False), config=encoder.config, notes=notes)


def _made(name: str, checkpoint: Checkpoint, where: object) -> Teacher:
    encoder = to_encoder(checkpoint, where).requires_grad_(False)
    return Teacher(name=name, encoder=encoder, config=encoder.config, notes=checkpoint.notes)


def bundles_by_name() -> dict[str, Any]:
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
