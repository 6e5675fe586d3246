"""Weights that Hugging Face spreads over several files: an index beside them names the file of each tensor."""

from collections.abc import Mapping
from os.path import isfile
from pathlib import Path
from typing import Any

from l0prune import DataError


def parts_of(content: Mapping[str, Any], index: Path) -> list[Path]:
    """The files that an index names, each once.

    Args:
        content: Of the index.
        index: The file.

    Raises:
        DataError: It names no files, or others than those beside it.
    """
    names = content.get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        expected = "a table `weight_map` of tensors and files"
        raise DataError("damaged index of weights", where=index, got=type(names).__name__, expected=expected)
    parts = [index.parent / name for name in sorted({*names.values()})]
    for part in parts:
        if part.parent != index.parent or not isfile(part):
            raise DataError("no such part of the weights", where=index, got=part.name, expected="a file beside it")
    return parts
