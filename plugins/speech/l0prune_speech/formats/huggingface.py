"""Hugging Face directories of HuBERT, wav2vec 2.0 and WavLM: config.json beside the weights.

A dense encoder is written for transformers' own classes. A pruned one brings its class along, `modeling_l0prune.py`.
"""

import json
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from l0prune import ConfigError
from l0prune.support import file_digest
from l0prune_speech.encoder import SpeechEncoder, normalized
from l0prune_speech.formats.checkpoint import (
    Checkpoint,
    family,
    renamed,
)
from l0prune_speech.formats.huggingface_reading import MARK, WEIGHTS, from_huggingface
from l0prune_speech.formats.huggingface_settings import ONLY, names_for
from l0prune_speech.formats.registry import Format, Outputs, Run, register_format
from l0prune_speech.formats.source import Source

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
_NAMES_BACK = (
    (r"^encoder\.feature_projection\.", "feature_projection."),
    (r"^encoder\.transformer\.", "encoder."),
    (r"^encoder\.rel_attn_embed\.", "encoder.layers.0.attention.rel_attn_embed."),
)
_SHARD = re.compile(r"-\d+-of-\d+\.")


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
        **{said: ours[key] for key, said in names_for(kind).items()},
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
        **{key: value for key, value in ONLY.items() if value is not None},
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
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt", **MARK})
    theirs["l0prune"] = {**pruned, "sha256": {WEIGHTS: file_digest(folder / WEIGHTS)}}
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
