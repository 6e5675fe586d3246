"""Whether the files of a folder are whole."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import safetensors

from l0prune.storage import load_checkpoint
from l0prune.support import check_archive

_PNG_END = b"IEND\xaeB`\x82"


def _opens(path: Path) -> None:
    with safetensors.safe_open(path, "pt") as file:
        file.metadata()


def _ends(end: bytes) -> Callable[[Path], None]:
    def check(path: Path) -> None:
        if not path.read_bytes().endswith(end):
            raise ValueError("it breaks off")

    return check


_CHECKS: dict[str, Callable[[Path], object]] = {
    ".json": lambda path: json.loads(path.read_text()),
    ".toml": lambda path: tomllib.loads(path.read_text()),
    ".safetensors": _opens,
    ".pt": load_checkpoint,
    ".pth": check_archive,
    ".png": _ends(_PNG_END),
    ".html": _ends(b"</html>\n"),
}


def broken(folder: Path, left: tuple[str, ...] = ()) -> list[str]:
    """Files under final names that are not whole, and what is no file of a run.

    Args:
        folder: Where to look.
        left: "partial" where files that were being written may be left, "lock" where those that say who writes may.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if ".partial" in path.as_posix() or path.suffix == ".lock":
            kind = "lock" if path.suffix == ".lock" else "partial"
            found += [] if kind in left else [f"{name}: left over"]
        elif path.is_file() and path.suffix in _CHECKS:
            try:
                _CHECKS[path.suffix](path)
            except Exception as error:
                found.append(f"{name}: {type(error).__name__}: {error}")
    return found
