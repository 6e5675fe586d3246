"""Reads CTranslate2's binary form of a model: named arrays, some of them under a second name."""

import struct
from pathlib import Path

import numpy as np

from l0prune import DataError

_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}


def read_variables(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a `model.bin`, by name, aliases included.

    Layout, little endian: uint32 version; text (the model's kind); uint32 revision; uint32 count of variables, each a
    text (name), uint8 dimensions, uint32 for each, uint8 type, uint32 bytes, the bytes; uint32 count of aliases, each
    two texts. A text is a uint16 length and as many bytes, ending in a zero.

    Raises:
        DataError: The file is not of this form.

    Source: CTranslate2, python/ctranslate2/specs/model_spec.py, `ModelSpec._serialize`.
    """
    data = path.read_bytes()
    try:
        return _Reader(data).variables()
    except (struct.error, ValueError, KeyError, IndexError) as error:
        raise DataError("not a model of CTranslate2's form", where=path.name, got=repr(error)) from error


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def _number(self, form: str) -> int:
        (value,) = struct.unpack_from("<" + form, self._data, self._at)
        self._at += struct.calcsize("<" + form)
        return value

    def _text(self) -> str:
        size = self._number("H")
        text = self._data[self._at : self._at + size].split(b"\0")[0].decode()
        self._at += size
        return text

    def _array(self) -> np.ndarray:
        shape = [self._number("I") for _ in range(self._number("B"))]
        kind, size = np.dtype(_TYPES[self._number("B")]), self._number("I")
        values = np.frombuffer(self._data, kind, size // kind.itemsize, self._at).reshape(shape)
        self._at += size
        return values

    def variables(self) -> dict[str, np.ndarray]:
        self._number("I")
        self._text()
        self._number("I")
        found = {}
        for _ in range(self._number("I")):
            name = self._text()
            found[name] = self._array()
        for _ in range(self._number("I")):
            alias, name = self._text(), self._text()
            found[alias] = found[name]
        return found
