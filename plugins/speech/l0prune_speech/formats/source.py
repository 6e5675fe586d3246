"""A file or folder that may be a checkpoint: what formats look at to tell whether it is theirs, read once."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import safetensors
from torch import Tensor

from l0prune import DataError
from l0prune_speech.formats.pickled import read_pickled

_HEADER = 8
"""Bytes of a safetensors file before its JSON header: the header's length."""


class Source:
    """A file or folder, and what is in it. What cannot be read is nothing, and `refusal` says why.

    Args:
        path: Exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.refusal: DataError | None = None
        """Why the file could not be read, once something of it was asked for."""

    @property
    def folder(self) -> Path:
        """The folder that it is, or that it is in."""
        return self.path if self.path.is_dir() else self.path.parent

    def has(self, *names: str) -> bool:
        """Whether it is a folder with files of these names."""
        return self.path.is_dir() and all((self.path / name).is_file() for name in names)

    @cached_property
    def content(self) -> Any:
        """What `torch.save` wrote, read without running anything; None of a folder and of any other file."""
        if self.path.is_dir() or self._is_safetensors:
            return None
        try:
            return read_pickled(self.path)
        except DataError as error:
            self.refusal = error
            return None

    @cached_property
    def metadata(self) -> Mapping[str, str] | None:
        """That of a safetensors file; None of a folder and of any other file."""
        if self.path.is_dir() or not self._is_safetensors:
            return None
        try:
            with safetensors.safe_open(self.path, "pt") as file:
                return file.metadata() or {}
        except (safetensors.SafetensorError, OSError) as error:
            got = " ".join(str(error).split())
            self.refusal = DataError("damaged safetensors file", where=self.path, got=got)
            return None

    def holds(self, **kinds: type) -> bool:
        """Whether `content` is a dictionary with these keys, whose values are of these types."""
        content = self.content
        return isinstance(content, Mapping) and all(isinstance(content.get(key), kind) for key, kind in kinds.items())

    @cached_property
    def is_bare(self) -> bool:
        """Whether it holds tensors by name and nothing else: weights that say nothing of their network."""
        if self.metadata is not None:
            return True
        content = self.content
        return isinstance(content, Mapping) and bool(content) and all(isinstance(v, Tensor) for v in content.values())

    @cached_property
    def _is_safetensors(self) -> bool:
        try:
            with self.path.open("rb") as file:
                start = file.read(_HEADER + 1)
        except OSError as error:
            raise DataError("cannot read", where=self.path, got=error.strerror) from error
        return start[_HEADER:] == b"{" or self.path.suffix == ".safetensors"
