"""Files that `torch.save` wrote, read without running what they name.

torch's own restricted unpickler does the reading. What training frameworks leave beside the weights (settings objects,
dictionaries) becomes inert; any other name is refused.
"""

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from l0prune import DataError
from l0prune.support import check_archive, pickled_names

_FRAMEWORKS = ("fairseq", "omegaconf", "hydra", "argparse", "numpy", "typing", "enum")
"""Packages whose objects stand in checkpoints and are not needed to read the weights."""
_TYPES = ("dict", "list", "tuple", "int", "float", "str", "bool", "object")
"""Of Python itself: omegaconf's nodes say of which type they are."""

_DAMAGE = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError),
    *(TypeError, ValueError, zipfile.BadZipFile),
)
"""What torch and Python raise over a file that is not what was written."""


class Inert:
    """What is left of an object of some framework: its state, if any, and nothing that acts."""

    def __init__(self, *_args: object, **_kwargs: object) -> None:
        self.state: Any = None

    def __new__(cls, *_args: object, **_kwargs: object) -> "Inert":
        """Make one from whatever arguments the pickle holds."""
        made = super().__new__(cls)
        made.state = None
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        """Nothing: what is kept is not needed."""

    def append(self, item: object) -> None:
        """Nothing."""

    def extend(self, items: object) -> None:
        """Nothing."""


def read_pickled(path: Path) -> Any:
    """The content of a file that `torch.save` wrote, with its tensors on the CPU.

    Args:
        path: The file, in torch's present (zip) or old format.

    Raises:
        DataError: It is damaged or not such a file, or names something that is not data: then nothing of it ran.
    """
    hint = "if you trust it, load it yourself and save its state_dict and config again"
    try:
        names = pickled_names(path)
        if zipfile.is_zipfile(path):
            check_archive(path)
        stubs = [_stub(name) for name in sorted(names) if name.partition(".")[0] in _FRAMEWORKS]
        stubs += [_stub(f"builtins.{name}") for name in _TYPES]
        with torch.serialization.safe_globals([*stubs, (_plain_dict, "collections.defaultdict")]):  # type: ignore[arg-type]
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError("file refused: it holds more than data", where=path, got=_reason(error), hint=hint) from error
    except _DAMAGE as error:
        got = " ".join(str(error).split())[:160] or type(error).__name__
        raise DataError("damaged checkpoint, or not one of torch", where=path, got=got) from error


def _reason(error: pickle.UnpicklingError) -> str:
    """What torch's message says, without its page about how to allow it."""
    said = " ".join(str(error).split())
    named = re.search(r"GLOBAL (\S+)", said)
    return named[1] if named else said.rpartition("WeightsUnpickler error: ")[2][:160]


def _plain_dict(*_factory: object) -> dict[object, object]:
    """In place of a dictionary that makes its missing values."""
    return {}


def _stub(name: str) -> tuple[type, str]:
    module, _, last = name.rpartition(".")
    return type(last, (Inert,), {"__module__": module}), name
