"""Checks of an exported file or folder."""

import zipfile
from pathlib import Path

from l0prune.errors import RunError
from l0prune.measuring import parameters
from l0prune.support import (
    SUMS,
    check_archive,
    check_finite,
    check_stamp,
    check_sums,
    counted,
    named_weights,
)
from l0prune.workflows.verification.common import Checks, Unknown, opener

_ZIP = b"PK\x03\x04"
_PROGRAM_PARTS = ("constants.pkl", "archive_format")
"""Parts of the archives that TorchScript and torch.export write: programs, which hold no network to be opened."""

_PROGRAMS = ("*.onnx", "*.pt2", "model.bin")
"""Files in a folder of ONNX, of torch.export and of CTranslate2."""


def export_checks(path: Path, plugin: str | None) -> Checks:
    """Checks of what is no run."""
    yield "checksum", lambda: _checksum(path, plugin)
    yield "network", lambda: _opened(path, plugin)


def _checksum(path: Path, plugin: str | None) -> str:
    if path.is_dir():
        if (files := check_sums(path)) is not None:
            return f"the SHA-256 of {counted(files, 'file')} in {SUMS}"
        if not (said := opener(plugin).checksum(str(path))):
            raise Unknown("it carries no checksum")
        return said
    if _is_archive(path):
        return _archive(path)
    if not check_stamp(path):
        raise Unknown("it carries no checksum")
    return "the SHA-256 in its metadata"


def _is_archive(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_ZIP)) == _ZIP
    except OSError as error:
        raise RunError("cannot read", where=path, got=error.strerror) from error


def _archive(path: Path) -> str:
    try:
        check_archive(path)
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, OSError, RuntimeError, ValueError) as error:
        raise RunError("damaged archive", where=path, got=error) from error
    if not any(part.CRC for part in parts):
        raise Unknown("the archive was written without checksums")
    return f"the CRC-32 of {counted(len(parts), 'part')}"


def _opened(path: Path, plugin: str | None) -> str:
    if path.suffix == ".onnx" or (path.is_dir() and any(any(path.glob(name)) for name in _PROGRAMS)):
        raise Unknown("a program holds no network to be opened; l0prune bench runs it")
    if path.is_file() and _is_archive(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith(_PROGRAM_PARTS) for name in archive.namelist()):
                raise Unknown("a program holds no network to be opened")
    network = opener(plugin).open(str(path))
    check_finite(named_weights(network).items(), path)
    return f"{parameters(network):,} parameters, all finite"
