"""Whether files are what was written: SHA-256 digests, checksums of archives, and stamps within a file."""

import hashlib
import json
import lzma
import mmap
import os.path
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from l0prune.errors import RunError
from l0prune.support.files import check_inside, write_text
from l0prune.support.parsing import read_text

STAMP = "l0prune_sha256"
"""The key, in a file's own metadata, of the digest of the file in which zeros stand for it."""
SUMS = "SHA256SUMS"
"""The file in a folder with the digests of the others."""
_SUM = re.compile(r"(?P<digest>[0-9a-f]{64})  (?P<name>[^/].*)")
_FOLDER = 0x10
"""The attribute of a folder in an archive's directory (MS-DOS)."""
_DIGITS = 64
_BLANK = b"0" * _DIGITS
_MARK = STAMP.encode() + b"\x12" + bytes([_DIGITS])
"""In protobuf, which ONNX is: the key, and before the value its field number and its length."""


def file_digest(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits: what the program `sha256sum` prints.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        if not path.stat().st_size:
            return hashlib.sha256().hexdigest()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return hashlib.sha256(content).hexdigest()


def write_sums(folder: Path) -> None:
    """Write the SHA-256 of each file in a folder to its file SHA256SUMS, for `sha256sum --check SHA256SUMS`, too."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS)
    lines = [f"{file_digest(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    write_text(folder / SUMS, "".join(lines))


def check_sums(folder: Path) -> int | None:
    """Compare the files of a folder with its SHA256SUMS: how many there are; None where it has no such file.

    Raises:
        RunError: A file is missing, or not what was written; or SHA256SUMS is damaged or leads out of the folder.
    """
    listed = folder / SUMS
    if not os.path.isfile(listed):
        return None
    lines = _read_sums(listed)
    for number, line in enumerate(lines, 1):
        found = _SUM.fullmatch(line)
        if found is None or ".." in found["name"].split("/"):
            expected = "64 hexadecimal digits, two spaces and the name of a file in the folder"
            raise RunError("damaged checksums", where=f"{listed}, line {number}", got=line[:60], expected=expected)
        path = folder / found["name"]
        check_inside(path, folder)
        try:
            digest = file_digest(path)
        except (OSError, ValueError) as error:
            raise RunError("a file of the export cannot be read", where=path, got=error) from error
        if digest != found["digest"]:
            hint = "copy or export it again"
            raise RunError("not what was written", where=path, got=digest, expected=found["digest"], hint=hint)
    return len(lines)


def _read_sums(listed: Path) -> list[str]:
    try:
        return read_text(listed, "TOML").splitlines()
    except (OSError, ValueError) as error:
        raise RunError("damaged checksums", where=listed, got=error) from error


def json_digest(value: Mapping[str, Any]) -> str:
    """SHA-256 of an object as JSON with its keys in order, without spaces, in ASCII."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def check_archive(path: Path) -> None:
    """Check the checksum of every part of a zip archive, which torch does not look at when it reads one.

    An archive in which no part has any passes: `torch.serialization.set_crc32_options(False)` writes such.

    Raises:
        zipfile.BadZipFile: A part is not what was written, or the file is no archive.
        OSError, RuntimeError, ValueError: It cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            damaged = archive.testzip() if any(part.CRC for part in parts) else None
            # torch takes such a part for a folder, and what it has of it are bytes that nobody wrote.
            folder = next((part.filename for part in parts if part.external_attr & _FOLDER and part.file_size), None)
    except (EOFError, LookupError, lzma.LZMAError, struct.error, zlib.error) as error:
        raise zipfile.BadZipFile(f"damaged archive: {error}") from error
    if damaged is not None:
        raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
    if folder is not None:
        raise zipfile.BadZipFile(f"{folder} has content and is marked as a folder")


def stamp(path: Path) -> None:
    """Put a file's digest into the place that its metadata keep for it, an entry `STAMP` of 64 zeros."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        place = content.rfind(_MARK) + len(_MARK)
        if content[place : place + _DIGITS] != _BLANK:
            raise ValueError(f"no place for a checksum in {path}")
        content[place : place + _DIGITS] = hashlib.sha256(content).hexdigest().encode()


def check_stamp(path: Path) -> bool:
    """Whether a file has a digest of its own.

    Raises:
        RunError: It has one, of another content, or it cannot be read.
    """
    try:
        expected, got = _stamps(path)
    except OSError as error:
        raise RunError("cannot read", where=path, got=error.strerror) from error
    if expected is not None and got != expected:
        hint = f"if a tool has changed the file since, remove its metadata entry {STAMP}"
        raise RunError("damaged file: the checksum is wrong", where=path, got=got, expected=expected, hint=hint)
    return expected is not None


def _stamps(path: Path) -> tuple[str | None, str]:
    """The digest that a file states, if any, and the one that it has."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            return None, ""
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            mark = content.rfind(_MARK)
            if mark < 0:
                return None, ""
            place = mark + len(_MARK)
            expected = content[place : place + _DIGITS].decode("latin-1")
            digest = hashlib.sha256()
            with memoryview(content) as view:
                for part in (view[:place], _BLANK, view[place + _DIGITS :]):
                    digest.update(part)
                    if isinstance(part, memoryview):
                        part.release()
    return expected, digest.hexdigest()
