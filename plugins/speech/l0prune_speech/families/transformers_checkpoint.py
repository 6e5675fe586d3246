"""A checkpoint folder of transformers: what its config.json says, its weights, its feature extractor."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from l0prune import DataError, listed
from l0prune.formats import quiet
from l0prune_speech.data import SAMPLE_RATE

SUFFIXES = {
    "ForCTC": "ctc",
    "ForConditionalGeneration": "seq2seq",
    "ForSpeechSeq2Seq": "seq2seq",
    "ForSequenceClassification": "classify",
    "ForAudioClassification": "classify",
    "ForXVector": "speaker",
    "ForAudioFrameClassification": "frames",
}
"""What the name of a class says of its head."""
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", *_PICKLES)


def read_config(folder: Path) -> dict[str, Any]:
    """The content of a folder's config.json.

    Raises:
        DataError: It is damaged.
    """
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError("cannot read the settings", where=folder / "config.json", got=error) from error
    if not isinstance(content, dict):
        raise DataError("not the settings of a model", where=folder / "config.json", got=type(content).__name__)
    return content


def class_of(folder: Path, stated: Mapping[str, Any]) -> str:
    """The name of a checkpoint's class.

    Raises:
        DataError: None is stated, or it is a decoder alone.
    """
    names = stated.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        hint = "config.json says it under `architectures`, as save_pretrained writes it"
        raise DataError("the checkpoint does not say which class it is of", where=folder / "config.json", hint=hint)
    if names[0].endswith("ForCausalLM"):
        hint = "give the whole model, encoder and decoder"
        raise DataError("a decoder without an encoder hears nothing", where=folder, got=names[0], hint=hint)
    return names[0]


def task_of_class(name: str) -> str:
    """The task of a class's head; "distill" where it has none."""
    return next((task for suffix, task in SUFFIXES.items() if name.endswith(suffix)), "distill")


def load_model(folder: Path, name: str) -> tuple[Any, tuple[str, ...]]:
    """The model by its own class, and what was missing.

    Args:
        folder: Of the checkpoint.
        name: The class's.

    Raises:
        DataError: There is no such class, or weights are missing or damaged.
    """
    import transformers

    cls = getattr(transformers, name, None)
    if cls is None:
        hint = "upgrade transformers, or register a family for it"
        raise DataError("transformers has no such class", where=folder / "config.json", got=name, hint=hint)
    if not any((folder / file).is_file() for file in _WEIGHTS):
        raise DataError("no weights", where=folder, expected=" or ".join(_WEIGHTS))
    settings: dict[str, Any] = {"local_files_only": True, "output_loading_info": True, "dtype": torch.float32}
    try:
        with quiet():
            model, found = cls.from_pretrained(str(folder), **settings)
    except Exception as error:
        got = " ".join(str(error).split())[:200]
        raise DataError("cannot load the checkpoint", where=folder, got=f"{type(error).__name__}: {got}") from error
    missing = [key for key in sorted(found["missing_keys"]) if "masked_spec_embed" not in key]
    if missing:
        raise DataError("weights are missing", where=folder, got=listed(missing[:4]), expected=f"those of {name}")
    return model, ()


def feature_extractor(
    folder: Path, stated: Mapping[str, Any], default: Callable[[Mapping[str, Any]], Any] | None
) -> tuple[Any, tuple[str, ...]]:
    """The feature extractor of a checkpoint, and what was assumed.

    Args:
        folder: Of the checkpoint.
        stated: The content of its config.json.
        default: Makes one from that where the checkpoint has no settings of it; by default `waveform_extractor`.

    Raises:
        DataError: It cannot be made, or is of another sample rate than 16 kHz.
    """
    from transformers import AutoFeatureExtractor

    there = [name for name in ("preprocessor_config.json", "processor_config.json") if (folder / name).is_file()]
    notes: tuple[str, ...] = ()
    try:
        if there:
            extractor = AutoFeatureExtractor.from_pretrained(str(folder), local_files_only=True)
        else:
            extractor = (default or waveform_extractor)(stated)
            notes = (f"no settings of a feature extractor: {type(extractor).__name__} with its defaults is assumed",)
    except Exception as error:
        got = " ".join(str(error).split())[:200]
        raise DataError("cannot make the feature extractor", where=folder, got=got) from error
    rate = getattr(extractor, "sampling_rate", SAMPLE_RATE)
    if rate != SAMPLE_RATE:
        where = folder / (there[0] if there else "config.json")
        raise DataError("feature extractor of another sample rate", where=where, got=f"{rate} Hz", expected="16000 Hz")
    return extractor, notes


def waveform_extractor(stated: Mapping[str, Any]) -> Any:
    """That of a network which hears waveforms: layer norms in its convolutions want clips normalised and masked."""
    from transformers import Wav2Vec2FeatureExtractor

    layered = stated.get("feat_extract_norm") == "layer"
    return Wav2Vec2FeatureExtractor(do_normalize=layered, return_attention_mask=layered)
