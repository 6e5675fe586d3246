"""From a checkpoint's place to a network of its family, and from a run's architecture back to one."""

from collections.abc import Mapping
from os.path import exists, isfile  # Unlike those of a Path, for any name: it may be longer than a path's.
from pathlib import Path
from typing import Any

from torch import nn

import l0prune
from l0prune import ConfigError, DataError, nearest
from l0prune.storage import read_description
from l0prune_speech.families.network import TASKS, SpeechNetwork
from l0prune_speech.families.registry import (
    HOW_TO_ADD,
    Family,
    Wish,
    families,
    family_named,
    family_that_recognises,
)
from l0prune_speech.families.transformers_checkpoint import class_of, read_config, task_of_class

FAMILY = "network"
"""The key of a run's architecture that names the family; the encoders of torchaudio's layout have none."""
_ONLY: Mapping[str, Any] = {
    "hidden_act": "gelu",
    "feat_extract_activation": "gelu",
    "layer_norm_eps": 1e-5,
    "conv_pos_batch_norm": False,
    "feat_proj_layer_norm": True,
    "adapter_attn_dim": None,
    "add_adapter": False,
}
"""Settings with the one value that an encoder of torchaudio's layout can have."""


def has_own_class(source: str, task: str = "") -> bool:
    """Whether a teacher is compressed through the class of its family, not as an encoder of torchaudio's layout.

    Args:
        source: As `--teacher` takes it.
        task: What for; by default that of its head.
    """
    path = Path(source)
    if exists(path) and family_that_recognises(path) is not None:
        return True
    if isfile(path / "model.json"):
        return FAMILY in read_description(path).get("architecture", {})
    return isfile(path / "config.json") and _is_own(path, task)


def _is_own(folder: Path, task: str) -> bool:
    """Of a folder as transformers writes it."""
    stated = read_config(folder)
    if "auto_map" in stated and "shapes" not in stated.get("l0prune", {}):
        # The export of an encoder of torchaudio's layout.
        return False
    family = families().get(str(stated.get("model_type")))
    as_torchaudio = family is not None and family.layout == "torchaudio"
    if not as_torchaudio or any(stated.get(key, value) != value for key, value in _ONLY.items()):
        return True
    return (task or task_of_head(str(folder))) != "distill"


def task_of_head(source: str) -> str:
    """The task of a checkpoint's head; "distill" where it has none or does not say."""
    folder = Path(source)
    if isfile(folder / "model.json"):
        return str(read_description(folder).get("architecture", {}).get("task", "distill"))
    if not isfile(folder / "config.json"):
        return "distill"
    names = read_config(folder).get("architectures")
    return task_of_class(str(names[0])) if isinstance(names, list) and names else "distill"


def open_network(source: str, wish: Wish | None = None) -> SpeechNetwork:
    """Open a checkpoint, or the run of a pruned network, by its family.

    Args:
        source: A folder, or what a registered family recognises.
        wish: What is wanted of it.

    Raises:
        ConfigError: The family or the task is unknown, or the checkpoint has no head for it.
        DataError: It cannot be read.
    """
    wish = wish or Wish()
    if wish.task and wish.task not in TASKS:
        raise ConfigError("no such task", where=wish.task, expected=", ".join(TASKS), hint=nearest(wish.task, TASKS))
    path = Path(source)
    if isfile(path / "model.json"):
        return _of_run(path, wish)
    if family := family_that_recognises(path):
        return family.open(path, wish)
    if not isfile(path / "config.json"):
        raise DataError("not a checkpoint of a known family", where=path, expected="a folder with config.json")
    stated = read_config(path)
    return _family_of(path, stated).open(path, wish)


def _family_of(path: Path, stated: Mapping[str, Any]) -> Family:
    kind, known = str(stated.get("model_type") or ""), families()
    if kind in known:
        return known[kind]
    if stated.get("architectures"):
        # Refuses a decoder by its own line.
        class_of(path, stated)
    return family_named(kind, path / "config.json")


def _of_run(folder: Path, wish: Wish) -> SpeechNetwork:
    architecture = read_description(folder).get("architecture", {})
    if FAMILY not in architecture:
        raise DataError("not a network with a class of its own", where=folder, hint=HOW_TO_ADD)
    has = architecture.get("task", "distill")
    if wish.task and wish.task != has:
        raise ConfigError("the run's network is for another task", where=folder, got=wish.task, expected=has)
    family = family_named(str(architecture[FAMILY]), folder / "model.json")
    return family.around(l0prune.load(folder).float(), architecture, folder)


def build_network(architecture: Mapping[str, Any]) -> nn.Module | None:
    """The dense network of an architecture, with any weights; None where it names no family."""
    if FAMILY not in architecture:
        return None
    return family_named(str(architecture[FAMILY])).build(architecture)
