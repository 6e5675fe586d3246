"""A network as its users know it: a Hugging Face directory of the stock class where that can hold its widths.

Where it cannot, the directory brings a few lines of code along, which `trust_remote_code=True` runs.
"""

import json
from collections.abc import Mapping
from importlib import import_module
from importlib.resources import files
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import torch
from torch import nn

from l0prune_speech.families.network import BESIDE, SpeechNetwork
from l0prune_speech.families.padding import stock_model, times_of_words
from l0prune_speech.families.quietness import quiet
from l0prune_speech.families.registry import family_named

_CODE = "modeling_l0prune_network"
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
    dense = family_named(network.family).build(network.architecture)
    module, name = type(model).__module__, type(model).__name__
    code = files("l0prune_speech.families").joinpath(f"{_CODE}.py").read_text(encoding="utf-8")
    code = code.replace("transformers.models.MODULE import CLASS", f"{module} import {name}")
    code = code.replace("class Pruned(", f"class Pruned{name}(")
    (folder / f"{_CODE}.py").write_text(code, encoding="utf-8")
    stated = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    classes = (*_AUTO[network.task], *(("AutoModel",) if network.task != "distill" else ()))
    stated |= {
        "architectures": [f"Pruned{name}"],
        "auto_map": {auto: f"{_CODE}.Pruned{name}" for auto in classes},
        "l0prune": {"shapes": _shapes(dense, model), "numbers": _numbers(dense, model)},
    }
    (folder / "config.json").write_text(json.dumps(stated, indent=2) + "\n", encoding="utf-8")
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
    name, home = stated["architectures"][0], transformers
    if (folder / f"{_CODE}.py").is_file():
        spec = spec_from_file_location(f"{_CODE}_{folder.name}", folder / f"{_CODE}.py")
        assert spec is not None
        assert spec.loader is not None
        home = module_from_spec(spec)
        spec.loader.exec_module(home)
    cls: Any = getattr(home, name, None) or _encoder_class(stated, name)
    with quiet():
        return cls.from_pretrained(str(folder), dtype=torch.float32).eval()


def _encoder_class(stated: Mapping[str, Any], name: str) -> Any:
    """Of an encoder that transformers has no name for at its top."""
    from transformers import AutoConfig

    config = type(AutoConfig.for_model(stated["model_type"]))
    home = import_module(config.__module__.replace("configuration_", "modeling_"))
    return getattr(home, name)


def _shapes(dense: nn.Module, model: nn.Module) -> dict[str, list[int]]:
    """Those of tensors that differ from the dense network's."""
    before = dense.state_dict()
    return {
        name: list(tensor.shape) for name, tensor in model.state_dict().items() if tensor.shape != before[name].shape
    }


def _numbers(dense: nn.Module, model: nn.Module) -> dict[str, Any]:
    """What modules keep beside their weights, where it differs."""
    before, found = dict(dense.named_modules()), {}
    for path, module in model.named_modules():
        old = vars(before[path])
        for name, value in vars(module).items():
            plain = isinstance(value, int | tuple) and not isinstance(value, bool)
            if plain and name in old and old[name] != value:
                found[f"{path}.{name}"] = list(value) if isinstance(value, tuple) else value
    return found
