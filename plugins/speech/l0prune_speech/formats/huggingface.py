"""Hugging Face directories of HuBERT, wav2vec 2.0 and WavLM: config.json beside the weights.

A dense encoder is written for transformers' own classes. A pruned one brings its class along, `modeling_l0prune.py`.
"""

import json
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from l0prune import ConfigError, DataError, RunError, listed
from l0prune.support import file_digest, read_json
from l0prune_speech.encoder import SpeechEncoder, normalized
from l0prune_speech.formats.checkpoint import (
    PARAMETRIZED,
    Checkpoint,
    family,
    read_safetensors,
    renamed,
)
from l0prune_speech.formats.fit import named_tensors
from l0prune_speech.formats.parts import parts_of
from l0prune_speech.formats.pickled import read_pickled
from l0prune_speech.formats.registry import Format, Outputs, Run, register_format
from l0prune_speech.formats.source import Source

_MODEL_TYPES = {"hubert": "hubert", "wav2vec2": "wav2vec2", "wavlm": "wavlm"}
_CLASSES = {"hubert": "Hubert", "wav2vec2": "Wav2Vec2", "wavlm": "WavLM"}
_MODELING, _PIPELINE = "modeling_l0prune", "pipeline_l0prune"
"""Files of this folder that exports bring along."""
_TASKS = {
    "AutoModel": "Model",
    "AutoModelForCTC": "ForCTC",
    "AutoModelForAudioClassification": "ForSequenceClassification",
    "AutoModelForAudioFrameClassification": "ForAudioFrameClassification",
    "AutoModelForAudioXVector": "ForXVector",
}
"""Endings of transformers' classes, by the class that chooses among them."""
_AUTOS = {"hubert": tuple(_TASKS)[:3], "wav2vec2": tuple(_TASKS), "wavlm": tuple(_TASKS)}
"""What transformers has of each family."""
_SAME = {
    "extractor_conv_bias": "conv_bias",
    "encoder_embed_dim": "hidden_size",
    "encoder_projection_dropout": "feat_proj_dropout",
    "encoder_pos_conv_kernel": "num_conv_pos_embeddings",
    "encoder_pos_conv_groups": "num_conv_pos_embedding_groups",
    "encoder_num_layers": "num_hidden_layers",
    "encoder_num_heads": "num_attention_heads",
    "encoder_attention_dropout": "attention_dropout",
    "encoder_ff_interm_features": "intermediate_size",
    "encoder_ff_interm_dropout": "activation_dropout",
    "encoder_dropout": "hidden_dropout",
    "encoder_layer_norm_first": "do_stable_layer_norm",
    "encoder_layer_drop": "layerdrop",
}
_POSITIONS = {"encoder_num_buckets": "num_buckets", "encoder_max_distance": "max_bucket_distance"}
"""Ours by theirs."""
_SAID = {**_SAME, **_POSITIONS, "extractor_conv_layer_config": "conv_dim", "extractor_mode": "feat_extract_norm"}
_PRUNED = {"encoder_remaining_heads": "remaining_heads", "encoder_ff_interm_features": "intermediate_sizes"}
"""The same in the table of a pruned network."""
DEFAULTS: Mapping[str, Any] = {
    "conv_bias": False,
    "conv_dim": [512] * 7,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "feat_extract_norm": "group",
    "hidden_size": 768,
    "feat_proj_dropout": 0.0,
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "attention_dropout": 0.1,
    "intermediate_size": 3072,
    "activation_dropout": 0.1,
    "hidden_dropout": 0.1,
    "do_stable_layer_norm": False,
    "layerdrop": 0.1,
}
"""transformers' own, which config.json leaves out."""
WAVLM_DEFAULTS: Mapping[str, Any] = {"num_buckets": 320, "max_bucket_distance": 800}
_ONLY = {
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "layer_norm_eps": 1e-5,
    "conv_pos_batch_norm": False,
    "feat_proj_layer_norm": True,
    "adapter_attn_dim": None,
}
"""Settings with one value that these encoders can have."""
_NAMES = (
    (r"^encoder\.layers\.0\.attention\.rel_attn_embed\.", "encoder.rel_attn_embed."),
    (r"^encoder\.", "encoder.transformer."),
    (r"^feature_projection\.", "encoder.feature_projection."),
    *PARAMETRIZED,
)
_NAMES_BACK = (
    (r"^encoder\.feature_projection\.", "feature_projection."),
    (r"^encoder\.transformer\.", "encoder."),
    (r"^encoder\.rel_attn_embed\.", "encoder.layers.0.attention.rel_attn_embed."),
)
_MASK = "masked_spec_embed"
_WEIGHTS = "model.safetensors"
_UPSTREAM = "model.pt"
"""The weights of an s3prl upstream."""
_MARK = {"written_by": "l0prune"}
_PREPROCESSORS = (("processor_config.json", "feature_extractor"), ("preprocessor_config.json", ""))
"""Where `do_normalize` stands, and in which table, in the order in which transformers looks."""
_SHARD = re.compile(r"-\d+-of-\d+\.")


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
    if not isinstance(kind, str) or kind not in _MODEL_TYPES:
        raise DataError("not an encoder of these families", where=folder, got=kind, expected=", ".join(_MODEL_TYPES))
    for key, value in _ONLY.items():
        if stated.get(key, value) != value:
            raise DataError(f"{key} is not supported", where=folder / "config.json", got=stated[key], expected=value)
    values = {**DEFAULTS, **(WAVLM_DEFAULTS if kind == "wavlm" else {}), **stated}
    try:
        config = _from_config(values, kind)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise DataError("cannot read", where=folder / "config.json", got=error) from error
    normalizes, assumed = _normalizes(folder, values)
    config["normalize_waveform"] = normalizes
    pruned = values.get("l0prune") or {}
    said = {ours: (theirs, values.get(theirs)) for ours, theirs in _SAID.items()}
    said |= {ours: (f"l0prune.{theirs}", pruned[theirs]) for ours, theirs in _PRUNED.items() if theirs in pruned}
    if weights is None or weights.name == _WEIGHTS:
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
    path = folder / _WEIGHTS
    if not isinstance(digests, Mapping) or not path.is_file() or not _is_ours(path):
        return False
    got, expected = file_digest(path), digests.get(_WEIGHTS)
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
        return f"the SHA-256 of {_WEIGHTS} in config.json" if holds else None
    if (folder / _UPSTREAM).is_file():
        read_pickled(folder / _UPSTREAM)
        return f"the CRC-32 of each part of {_UPSTREAM}"
    return None


def _is_ours(path: Path) -> bool:
    try:
        with safetensors.safe_open(path, "pt") as file:
            return _MARK.items() <= (file.metadata() or {}).items()
    except (safetensors.SafetensorError, OSError):
        return True


def _from_config(values: Mapping[str, Any], kind: str) -> dict[str, Any]:
    shapes = [values[key] for key in ("conv_dim", "conv_kernel", "conv_stride")]
    if len({len(shape) for shape in shapes}) != 1:
        raise ValueError(f"conv_dim, conv_kernel and conv_stride differ in length: {[len(shape) for shape in shapes]}")
    pruned = values.get("l0prune") or {}
    return {
        **{ours: values[theirs] for ours, theirs in _names(kind).items()},
        "extractor_mode": f"{values['feat_extract_norm']}_norm",
        "extractor_conv_layer_config": list(zip(*shapes, strict=True)),
        "aux_num_out": None,
        "family": kind,
        "extractor_channel_scale": bool(pruned.get("channel_scale", False)),
        **{ours: pruned[theirs] for ours, theirs in _PRUNED.items() if theirs in pruned},
    }


def _names(kind: str) -> dict[str, str]:
    """Their keys by ours, for a family."""
    return {**_SAME, **(_POSITIONS if kind == "wavlm" else {})}


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


def to_huggingface(checkpoint: Checkpoint, folder: Path, card: str) -> list[str]:
    """Write a directory for `AutoModel.from_pretrained`; returns what had to be supplied.

    Args:
        checkpoint: What to write.
        folder: An empty folder.
        card: The model card.
    """
    ours = checkpoint.config
    kind = family(ours)
    remaining, widths = ours.get("encoder_remaining_heads"), ours["encoder_ff_interm_features"]
    pruned: dict[str, Any] = {}
    if remaining:
        pruned["remaining_heads"] = [list(left) for left in remaining]
    if not isinstance(widths, int):
        pruned["intermediate_sizes"] = list(widths)
    if ours.get("extractor_channel_scale"):
        pruned["channel_scale"] = True
    dims, kernels, strides = ([*column] for column in zip(*ours["extractor_conv_layer_config"], strict=True))
    theirs = {
        **{said: ours[key] for key, said in _names(kind).items()},
        "intermediate_size": widths if isinstance(widths, int) else max(1, *widths),
        "architectures": [f"{_CLASSES[kind]}Model"],
        "model_type": kind,
        "conv_dim": dims,
        "conv_kernel": kernels,
        "conv_stride": strides,
        "feat_extract_norm": ours["extractor_mode"].removesuffix("_norm"),
        "num_feat_extract_layers": len(dims),
        # The vector that masks frames in training is none of the encoder's weights.
        "mask_time_prob": 0.0,
        "mask_feature_prob": 0.0,
        **{key: value for key, value in _ONLY.items() if value is not None},
        "dtype": "float32",
        # transformers' own of this name knows text alone.
        "custom_pipelines": {
            "feature-extraction": {"impl": f"{_PIPELINE}.SpeechFeatureExtraction", "pt": ["AutoModel"]}
        },
    }
    code = [_PIPELINE]
    if pruned:
        named = {auto: f"Pruned{_CLASSES[kind]}{task}" for auto, task in _TASKS.items() if auto in _AUTOS[kind]}
        theirs |= {
            "architectures": [named["AutoModel"]],
            "auto_map": {auto: f"{_MODELING}.{name}" for auto, name in named.items()},
        }
        code.append(_MODELING)
    for name in code:
        shutil.copyfile(Path(__file__).with_name(f"{name}.py"), folder / f"{name}.py")
    preprocessor = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "sampling_rate": 16000,
        "padding_value": 0.0,
        "padding_side": "right",
        "do_normalize": bool(ours.get("normalize_waveform", False)),
        "return_attention_mask": True,
    }
    tensors = {name: tensor.contiguous() for name, tensor in renamed(checkpoint.tensors, *_NAMES_BACK).items()}
    save_file(tensors, folder / _WEIGHTS, metadata={"format": "pt", **_MARK})
    theirs["l0prune"] = {**pruned, "sha256": {_WEIGHTS: file_digest(folder / _WEIGHTS)}}
    for name, value in (("config.json", theirs), ("preprocessor_config.json", preprocessor)):
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(card, encoding="utf-8")
    return []


def _huggingface_outputs(encoder: SpeechEncoder, waveforms: Tensor, lengths: Tensor) -> Outputs:
    # transformers counts the states from behind the positional convolution, and may norm the last one.
    return [*encoder.hidden_states(waveforms, None, lengths)[1:-1], encoder(waveforms, lengths)[0]]


def _open_huggingface(folder: Path) -> Run:
    transformers = _transformers()
    with _quiet(transformers):
        config = transformers.AutoConfig.from_pretrained(folder)
        name = config.architectures[0]
        if name.startswith("Pruned"):
            # The very file that the folder holds, without a copy of it in the user's cache.
            from l0prune_speech.formats import modeling_l0prune as home
        else:
            home = transformers
        model = getattr(home, name).from_pretrained(folder, config=config).eval()
        normalizes = transformers.AutoFeatureExtractor.from_pretrained(folder).do_normalize

    def run(waveforms: Tensor, lengths: Tensor) -> Outputs:
        # transformers' own normalisation adds another epsilon to the variance.
        values = normalized(waveforms, lengths) if normalizes else waveforms
        mask = (torch.arange(waveforms.shape[1]) < lengths[:, None]).long()
        with warnings.catch_warnings():
            # transformers' WavLM gives torch masks of two types.
            warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask")
            outputs = model(values, attention_mask=mask, output_hidden_states=True)
        return [*outputs.hidden_states[1:-1], outputs.last_hidden_state]

    return run


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No progress bars of transformers meanwhile."""
    logging = transformers.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        hint = "pip install 'l0prune[huggingface]'"
        raise ConfigError("the export is checked with transformers, which is missing", hint=hint) from error
    return transformers


def _claims(source: Source) -> bool:
    if not (source.folder / "config.json").is_file():
        return False
    if source.path.is_dir() or source.path.name == "config.json" or source.path.name.endswith(".index.json"):
        return True
    # Weights that say something of themselves are those of another format.
    return source.is_bare and (source.metadata or {}).get("format", "pt") == "pt"


def _read(source: Source) -> Checkpoint:
    whole = source.path.is_dir() or source.path.suffix == ".json" or _SHARD.search(source.path.name)
    return from_huggingface(source.folder, None if whole else source.path)


def _needs() -> None:
    """Raise a `ConfigError` where transformers is missing."""
    _transformers()


register_format(
    Format(
        name="huggingface",
        reads="a folder of transformers (config.json and weights)",
        claims=_claims,
        read=_read,
        holds="a folder for transformers: dense encoders for its own classes, pruned ones with their classes beside",
        write=to_huggingface,
        open=_open_huggingface,
        opened_by="transformers (a pruned encoder: with the classes in its folder)",
        expected=_huggingface_outputs,
        needs=_needs,
    )
)
