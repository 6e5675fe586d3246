"""Hugging Face directories read: settings, weights in one file or several, and the checksums that ours carry."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
from torch import Tensor

from l0prune import DataError, RunError, listed
from l0prune.support import file_digest, read_json
from l0prune_speech.formats.checkpoint import (
    PARAMETRIZED,
    Checkpoint,
    read_safetensors,
    renamed,
)
from l0prune_speech.formats.fit import named_tensors
from l0prune_speech.formats.huggingface_settings import (
    DEFAULTS,
    MODEL_TYPES,
    ONLY,
    PRUNED,
    SAID,
    WAVLM_DEFAULTS,
    from_config,
)
from l0prune_speech.formats.parts import parts_of
from l0prune_speech.formats.pickled import read_pickled

_NAMES = (
    (r"^encoder\.layers\.0\.attention\.rel_attn_embed\.", "encoder.rel_attn_embed."),
    (r"^encoder\.", "encoder.transformer."),
    (r"^feature_projection\.", "encoder.feature_projection."),
    *PARAMETRIZED,
)
_MASK = "masked_spec_embed"
WEIGHTS = "model.safetensors"
_UPSTREAM = "model.pt"
"""The weights of an s3prl upstream."""
MARK = {"written_by": "l0prune"}
_PREPROCESSORS = (("processor_config.json", "feature_extractor"), ("preprocessor_config.json", ""))
"""Where `do_normalize` stands, and in which table, in the order in which transformers looks."""


def from_huggingface(folder: Path, weights: Path | None = None) -> Checkpoint:
    """Read a directory that `save_pretrained` or `to_huggingface` wrote.

    Args:
        folder: Has config.json.
        weights: A file; by default the one or those that transformers reads.

    Raises:
        DataError: A file is missing or damaged, or the model is of another family.
    """
    stated = _read_json(folder / "config.json")
    kind = stated.get("model_type")
    if not isinstance(kind, str) or kind not in MODEL_TYPES:
        raise DataError("not an encoder of these families", where=folder, got=kind, expected=", ".join(MODEL_TYPES))
    for key, value in ONLY.items():
        if stated.get(key, value) != value:
            raise DataError(f"{key} is not supported", where=folder / "config.json", got=stated[key], expected=value)
    values = {**DEFAULTS, **(WAVLM_DEFAULTS if kind == "wavlm" else {}), **stated}
    try:
        config = from_config(values, kind)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise DataError("cannot read", where=folder / "config.json", got=error) from error
    normalizes, assumed = _normalizes(folder, values)
    config["normalize_waveform"] = normalizes
    pruned = values.get("l0prune") or {}
    said = {ours: (theirs, values.get(theirs)) for ours, theirs in SAID.items()}
    said |= {ours: (f"l0prune.{theirs}", pruned[theirs]) for ours, theirs in PRUNED.items() if theirs in pruned}
    if weights is None or weights.name == WEIGHTS:
        check_digests(folder, stated)
    tensors, left_out = _encoder_only(_read_tensors(weights) if weights else _tensors(folder), kind)
    tensors.pop(_MASK, None)
    notes = [f"left out what is not the encoder: {listed(left_out)}"] if left_out else []
    notes += [assumed] if assumed else []
    return Checkpoint(config=config, tensors=renamed(tensors, *_NAMES), notes=tuple(notes), said=said)


def check_digests(folder: Path, stated: Mapping[str, Any]) -> bool:
    """Whether config.json states checksums of the weights beside it, which hold.

    transformers keeps them in config.json where it saves the network again after more training, with other weights:
    these lack the mark that l0prune leaves in its own.

    Args:
        folder: The directory.
        stated: Its config.json.

    Raises:
        DataError: A checksum is wrong.
    """
    ours = stated.get("l0prune")
    digests = ours.get("sha256") if isinstance(ours, Mapping) else None
    path = folder / WEIGHTS
    if not isinstance(digests, Mapping) or not path.is_file() or not _is_ours(path):
        return False
    got, expected = file_digest(path), digests.get(WEIGHTS)
    if got != expected:
        hint = "copy or export it again"
        raise DataError("damaged or missing weights", where=path, got=f"SHA-256 {got}", expected=expected, hint=hint)
    return True


def folder_checksum(folder: Path) -> str | None:
    """The checksum that an exported folder carries, in words, once it is found right; None where it carries none.

    Args:
        folder: A Hugging Face folder, or an s3prl upstream.

    Raises:
        DataError: It is wrong.
    """
    if (folder / "config.json").is_file():
        holds = check_digests(folder, _read_json(folder / "config.json"))
        return f"the SHA-256 of {WEIGHTS} in config.json" if holds else None
    if (folder / _UPSTREAM).is_file():
        read_pickled(folder / _UPSTREAM)
        return f"the CRC-32 of each part of {_UPSTREAM}"
    return None


def _is_ours(path: Path) -> bool:
    try:
        with safetensors.safe_open(path, "pt") as file:
            return MARK.items() <= (file.metadata() or {}).items()
    except (safetensors.SafetensorError, OSError):
        return True


def _normalizes(folder: Path, values: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether waveforms are normalised, and what to say where no file says so: then as published models of a layout."""
    for name, inside in _PREPROCESSORS:
        path = folder / name
        if path.is_file():
            stated = _read_json(path)
            stated = stated.get(inside) if inside else stated
            if isinstance(stated, Mapping) and stated.get("do_normalize") is not None:
                return bool(stated["do_normalize"]), ""
    assumed = values["feat_extract_norm"] == "layer"
    how = "are normalised" if assumed else "are not normalised"
    missing = " nor ".join(name for name, _ in _PREPROCESSORS)
    return assumed, f"assumed that waveforms {how}: neither {missing} says so"


def _encoder_only(tensors: Mapping[str, Tensor], kind: str) -> tuple[dict[str, Tensor], list[str]]:
    """The encoder's tensors without prefix, and the names of all others (heads, adapters)."""
    prefix = f"{kind}."
    inner = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    others = [name for name in tensors if not name.startswith(prefix)] if inner else []
    inner = inner or dict(tensors)
    adapters = [name for name in inner if name.startswith("adapter.")]
    return {name: tensor for name, tensor in inner.items() if name not in adapters}, [*others, *adapters]


def _tensors(folder: Path) -> dict[str, Tensor]:
    """The weights, whichever file or files hold them."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return _read_tensors(folder / name)
        index = folder / f"{name}.index.json"
        if index.is_file():
            return {
                key: value for part in parts_of(_read_json(index), index) for key, value in _read_tensors(part).items()
            }
    raise DataError("no weights beside config.json", where=folder, expected="model.safetensors or pytorch_model.bin")


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    return named_tensors(read_pickled(path), path)


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        value = read_json(path)
    except RunError as error:
        raise DataError("cannot read", where=path, got=error.got) from error
    if not isinstance(value, Mapping):
        raise DataError("not a JSON object", where=path, got=type(value).__name__)
    return value
