"""A network as its users know it: a Hugging Face directory of the stock class where that can hold its widths.

Where it cannot, the directory brings a few lines of code along, which `trust_remote_code=True` runs.
"""

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from l0prune.formats import add_code, code_in, quiet
from l0prune_speech.families.network import BESIDE, SpeechNetwork
from l0prune_speech.families.padding import stock_model, times_of_words
from l0prune_speech.families.registry import family_named

_AUTO = {
    "ctc": ("AutoModelForCTC",),
    "seq2seq": ("AutoModelForSpeechSeq2Seq",),
    "classify": ("AutoModelForAudioClassification",),
    "speaker": ("AutoModelForAudioXVector",),
    "frames": ("AutoModelForAudioFrameClassification",),
    "distill": ("AutoModel",),
}


def write_directory(network: SpeechNetwork, model: nn.Module, folder: Path) -> tuple[str, ...]:
    """Write a Hugging Face directory.

    Args:
        network: What the model belongs to.
        model: Pruned or dense.
        folder: An empty one.

    Returns:
        Which class opens it.
    """
    for name, content in network.files.items():
        (folder / name.removeprefix(f"{BESIDE}/")).write_bytes(content)
    stock = stock_model(network, model)
    if stock is not None:
        stock.load_state_dict(model.state_dict())
        _save(stock, model, folder)
        return (f"opens with {type(stock).__name__}.from_pretrained",)
    _save(model, model, folder)
    classes = (*_AUTO[network.task], *(("AutoModel",) if network.task != "distill" else ()))
    add_code(model, family_named(network.family).build(network.architecture), folder, classes)
    return (f"opens with {classes[0]}.from_pretrained(..., trust_remote_code=True): its layers differ in width",)


def _save(saved: Any, model: Any, folder: Path) -> None:
    if getattr(model, "generation_config", None) is not None:
        saved.generation_config = model.generation_config
    with quiet(), times_of_words(model):
        saved.save_pretrained(str(folder))


def open_directory(folder: Path) -> nn.Module:
    """The model of a directory, by the very file that it holds where it brings code along."""
    import transformers

    stated = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    name = stated["architectures"][0]
    home = code_in(folder) or transformers
    cls: Any = getattr(home, name, None) or _encoder_class(stated, name)
    with quiet():
        return cls.from_pretrained(str(folder), dtype=torch.float32).eval()


def _encoder_class(stated: Mapping[str, Any], name: str) -> Any:
    """Of an encoder that transformers has no name for at its top."""
    from transformers import AutoConfig

    config = type(AutoConfig.for_model(stated["model_type"]))
    home = import_module(config.__module__.replace("configuration_", "modeling_"))
    return getattr(home, name)
