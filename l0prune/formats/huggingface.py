"""Folders of transformers: of the stock class where its configuration can say the widths, else with a file of code."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from l0prune.errors import ConfigError
from l0prune.formats.example import Example
from l0prune.formats.registry import ModuleFormat, Opened, register_module_format
from l0prune.formats.stock_settings import stock_config
from l0prune.proof import relative_difference
from l0prune.removal import Bypassed, Skipped
from l0prune.support import file_digest, is_inside, kept_sizes, write_json

CODE = "modeling_l0prune"
"""The file that shapes a stock class; it imports nothing of this package."""
_NOT_HERE = "its class is not of transformers, and a folder must bring all code that it needs"


def _needs() -> None:
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        hint = "pip install 'l0prune[huggingface]'"
        raise ConfigError("a Hugging Face folder needs transformers", got=error, hint=hint) from error


def _refuses(module: Any) -> str | None:
    from transformers import PreTrainedModel

    if not isinstance(module, PreTrainedModel):
        return f"{type(module).__name__}, which is no model of transformers"
    return None


def _write(model: Any, example: Example, folder: Path) -> list[str]:
    """Write the stock form if it opens as the same network, else the form with code."""
    name, config = type(model).__name__, stock_config(model)
    if config is not None:
        _save_stock(model, config, folder)
        opened = _open(folder, model)
        if relative_difference(example.run(model), opened(example)) <= _form().tolerance:
            return [f"opens with {name}.from_pretrained", *_seal(folder)]
        for file in folder.iterdir():
            file.unlink()
    autos = _save_shaped(model, folder)
    return [
        f"opens with {autos[0]}.from_pretrained(..., trust_remote_code=True): its layers differ in width",
        *_seal(folder),
    ]


def _save_stock(model: Any, config: Any, folder: Path) -> None:
    with torch.device("meta"):
        stock = type(model)(config)
    stock.load_state_dict(model.state_dict(), assign=True)
    if model.can_generate():
        stock.generation_config = model.generation_config
    with quiet():
        stock.save_pretrained(str(folder))


def _save_shaped(model: Any, folder: Path) -> list[str]:
    """The form with code; the Auto classes that open it."""
    if not type(model).__module__.startswith("transformers.models."):
        raise ConfigError("huggingface cannot hold this network", where=type(model).__name__, got=_NOT_HERE)
    with torch.device("meta"):
        dense = type(model)(type(model.config).from_dict(model.config.to_dict()))
    with quiet():
        model.save_pretrained(str(folder))
    autos = _autos(model)
    add_code(model, dense, folder, autos)
    return autos


def add_code(model: nn.Module, dense: nn.Module, folder: Path, autos: Sequence[str]) -> None:
    """Bring a folder of transformers, which was saved without, the code that shapes the stock class.

    Args:
        model: The pruned network, of a class of transformers.
        dense: The network before it was pruned; it needs no values.
        folder: Where the model has been saved.
        autos: The Auto classes that are to open it.

    Raises:
        ConfigError: They differ in more than sizes and emptied blocks.
    """
    module, name = type(model).__module__, type(model).__name__
    widths = shaped_by(dense, model)
    code = files("l0prune.formats").joinpath(f"{CODE}.py").read_text(encoding="utf-8")
    code = code.replace("transformers.models.MODULE import CLASS", f"{module} import {name}")
    code = code.replace("class Pruned(", f"class Pruned{name}(")
    (folder / f"{CODE}.py").write_text(code, encoding="utf-8")
    stated = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    stated |= {
        "architectures": [f"Pruned{name}"],
        "auto_map": {auto: f"{CODE}.Pruned{name}" for auto in autos},
        "l0prune": widths,
    }
    write_json(folder / "config.json", stated)


def code_in(folder: Path) -> ModuleType | None:
    """The module that a folder's own code makes, which leaves nothing beside it; None where there is none."""
    path = folder / f"{CODE}.py"
    if not path.is_file():
        return None
    module = ModuleType(f"{CODE}_{folder.name.replace('.', '_')}")
    module.__file__ = str(path)
    exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), vars(module))
    return module


def shaped_by(dense: nn.Module, model: nn.Module) -> dict[str, Any]:
    """What makes of a dense network one of a pruned network's widths: the table `l0prune` of config.json.

    Args:
        dense: The network before it was pruned; it needs no values.
        model: The pruned network.

    Raises:
        ConfigError: They differ in more than sizes and emptied blocks.
    """
    emptied = {path: m.returns for path, m in model.named_modules() if isinstance(m, Bypassed | Skipped)}
    before, shapes, numbers = dict(dense.named_modules()), {}, {}
    for path, module in model.named_modules():
        if is_inside(path, *emptied):
            continue
        old = before.get(path)
        if old is None or type_before_parametrizations(old) is not type_before_parametrizations(module):
            got = f"{type(module).__name__} in the place of {type(old).__name__}"
            if kept_sizes(type(module)):
                got = "its methods keep sizes that those of the stock class derive"
            hint = "export it to onnx, torch.export, torchscript or safetensors"
            raise ConfigError("huggingface cannot hold this module", where=path, got=got, hint=hint)
        kept = {name: tuple(t.shape) for name, t in _own(module).items()}
        for name, shape in kept.items():
            if tuple(_own(old)[name].shape) != shape:
                shapes[f"{path}.{name}" if path else name] = list(shape)
        for name, value in vars(module).items():
            plain = isinstance(value, int | tuple) and not isinstance(value, bool)
            if plain and name in vars(old) and vars(old)[name] != value:
                numbers[f"{path}.{name}"] = list(value) if isinstance(value, tuple) else value
    return {"shapes": shapes, "numbers": numbers, "emptied": emptied}


def _own(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers that a module holds itself."""
    return dict([*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)])


def _autos(model: Any) -> list[str]:
    """The Auto classes of transformers that stand for a model's class; AutoModel where none does."""
    from transformers.models.auto import modeling_auto

    config, found = type(model.config), []
    for name, auto in vars(modeling_auto).items():
        mapping = getattr(auto, "_model_mapping", None)
        if not name.startswith("AutoModel") or mapping is None or config not in mapping:
            continue
        known = mapping[config]
        if type(model) in (known if isinstance(known, tuple | list) else (known,)):
            found.append(name)
    # What trains a model from nothing is the last to be looked for.
    return sorted(found, key=lambda name: name == "AutoModelForPreTraining") or ["AutoModel"]


def _seal(folder: Path) -> list[str]:
    """State the checksums of the weights in config.json."""
    path = folder / "config.json"
    stated: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    table: Mapping[str, Any] = stated.get("l0prune", {})
    digests = {file.name: file_digest(file) for file in sorted(folder.glob("*.safetensors"))}
    write_json(path, {**stated, "l0prune": {**table, "sha256": digests}})
    return ["tokenizers and processors are not written: save them into the folder, too"]


def _open(folder: Path, module: Any) -> Opened:
    """By the stock class, or by the very file that the folder holds."""
    home, cls = code_in(folder), type(module)
    if home is not None:
        cls = getattr(home, f"Pruned{cls.__name__}")
    with quiet():
        opened = cls.from_pretrained(str(folder), dtype=module.dtype).eval()
    return lambda example: example.run(opened)


@contextmanager
def quiet() -> Iterator[None]:
    """Neither bars nor warnings of transformers meanwhile; its errors come as exceptions."""
    from transformers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def _form() -> ModuleFormat:
    return _FORMAT


_FORMAT = register_module_format(
    ModuleFormat(
        name="huggingface",
        holds="a folder for from_pretrained: of the stock class where its settings can say the widths, else with code",
        write=_write,
        open=_open,
        opened_by="transformers",
        refuses=_refuses,
        needs=_needs,
    )
)
