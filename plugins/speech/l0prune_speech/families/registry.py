"""Families of speech networks by name: the ones that come along, and those of other packages."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from l0prune import PluginError
from l0prune.support import Registry
from l0prune_speech.extensions import load_extensions

if TYPE_CHECKING:
    from torch import nn

    from l0prune_speech.families.network import SpeechNetwork

OURS = (
    "data2vec",
    "hubert",
    "moonshine",
    "parakeet",
    "sew",
    "unispeech",
    "wav2vec2",
    "wav2vec2_bert",
    "wav2vec2_conformer",
    "wavlm",
    "whisper",
)
"""Files of this folder that register families."""
HOW_TO_ADD = "l0prune_speech.families.register_family adds one"


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is wanted of a checkpoint."""

    task: str = ""
    """One of `TASKS`; by default that of its head, and "distill" where it has none."""
    language: str = ""
    """Of the transcripts, where the network speaks several."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """How networks of a family are opened and built."""

    name: str
    """As `config.json` has it under `model_type`, or any other name."""
    description: str
    """One line: the classes and heads."""
    open: Callable[[Path, Wish], "SpeechNetwork"]
    """Reads a checkpoint; raises a `DataError` or a `ConfigError` where it cannot be used so."""
    build: Callable[[Mapping[str, Any]], "nn.Module"]
    """The dense network of an architecture, with any weights."""
    around: Callable[["nn.Module", Mapping[str, Any], Path], "SpeechNetwork"]
    """A pruned network, its architecture and the folder of its run -> what it was before it was pruned, with `model`
    in its place."""
    recognises: Callable[[Path], bool] = lambda _path: False
    """Whether a checkpoint is one of the family, where its `model_type` does not tell."""
    layout: str = ""
    """ "torchaudio" where the bare encoder has torchaudio's layout, and is pruned in it."""


def _taken(name: str, standing: Family) -> PluginError:
    got = standing.description
    return PluginError("the name of the family is taken", where=name, got=got, expected="another name")


_FAMILIES: Registry[str, Family] = Registry(
    "family",
    unknown="unknown family of speech networks",
    taken=_taken,
    own=[f"l0prune_speech.families.{name}" for name in OURS],
)


def register_family(family: Family) -> Family:
    """Make a family known.

    Raises:
        PluginError: Its name is taken.
    """
    _FAMILIES.load()
    return _FAMILIES.register(family.name, family)


def families() -> Mapping[str, Family]:
    """All families by name."""
    _FAMILIES.load()
    load_extensions()
    return dict(sorted(_FAMILIES.items()))


def family_named(name: str, where: object = None) -> Family:
    """A family.

    Raises:
        ConfigError: There is none of that name; says which there are, and how to add one.
    """
    facts = {"where": where, "got": name or None, "expected": f"one of {', '.join(families())}"}
    return _FAMILIES.named(name, hint=HOW_TO_ADD, **facts)


def family_that_recognises(path: Path) -> Family | None:
    """The first family that says that a checkpoint is its own."""
    return next((family for family in families().values() if family.recognises(path)), None)
