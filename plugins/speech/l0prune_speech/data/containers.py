"""Audio within larger files: shards of WebDataset (tar), and the recordings and cuts that manifests of lhotse list."""

import gzip
import io
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os.path import exists
from pathlib import Path
from typing import Any, BinaryIO

from l0prune.errors import DataError
from l0prune.support import parse_json

SHARD = ".tar"
MANIFESTS = (".jsonl", ".jsonl.gz")
_PACKED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
_LONGEST_LINE = 2**24


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where sound may be: a file, or a part of one."""

    path: Path
    name: str = ""
    """Within the file; a file of its own has none."""
    offset: int | None = None
    """Of the first byte of a file within this file; None for a file of its own."""
    size: int = 0
    """Of the file within this file, in bytes."""
    start_seconds: float = 0.0
    duration_seconds: float | None = None
    """None up to the end."""
    channel: int | None = None
    """None for the mean of all."""
    refused: str = ""
    """Why it is not read."""


class Slice(io.RawIOBase):
    """A part of an open file, as a file.

    Args:
        file: What it is a part of.
        offset: Of its first byte.
        size: In bytes.
    """

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        self._file, self._offset, self._size, self._at = file, offset, size, 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place; returns it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = min(max(0, base + offset), self._size)
        return self._at

    def tell(self) -> int:
        """The place."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as there is something; returns how far."""
        self._file.seek(self._offset + self._at)
        content = self._file.read(min(len(buffer), self._size - self._at))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


def is_packed(path: Path) -> bool:
    """Whether a path is a compressed shard, within which nothing can be looked up."""
    return path.name.lower().endswith(_PACKED)


def is_manifest(path: Path) -> bool:
    """Whether a path is a manifest of lhotse, by its name."""
    return path.name.lower().endswith(MANIFESTS)


def in_shard(shard: Path, suffixes: tuple[str, ...]) -> list[Source]:
    """The sound in a shard; of a damaged one nothing but that.

    Args:
        shard: A tar file that is not compressed.
        suffixes: Of what is sound.
    """
    found = []
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                if member.isfile() and member.name.lower().endswith(suffixes):
                    found.append(Source(path=shard, name=member.name, offset=member.offset_data, size=member.size))
            ends = archive.offset
        with shard.open("rb") as file:
            file.seek(ends)
            # A header that cannot be read ends the list without a word.
            if any(file.read(tarfile.BLOCKSIZE)):
                raise tarfile.ReadError("bad header")
    except (tarfile.TarError, OSError, EOFError, ValueError):
        return [Source(path=shard, refused="damaged shard")]
    return found or [Source(path=shard, refused="a shard without sound")]


def in_manifest(manifest: Path) -> Iterator[Source]:
    """What a manifest of lhotse lists: recordings, or cuts of them.

    Args:
        manifest: A JSON object a line; paths are relative to its folder, or else to the current one.

    Raises:
        DataError: It cannot be read, or a line is no recording and no cut.
    """
    for number, line in enumerate(_lines(manifest), start=1):
        if not line.strip():
            continue
        where = f"{manifest}:{number}"
        try:
            row = parse_json(line)
            yield _source(row, manifest.parent)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            expected = "a recording or a cut of lhotse, as a JSON object"
            raise DataError("malformed manifest", where=where, got=line.strip()[:60], expected=expected) from error


def _lines(manifest: Path) -> Iterator[str]:
    opened: Any = gzip.open if manifest.suffix.lower() == ".gz" else open
    try:
        with opened(manifest, "rt", encoding="utf-8") as file:
            while line := file.readline(_LONGEST_LINE):
                yield line
    except (OSError, EOFError, UnicodeError) as error:
        raise DataError("manifest cannot be read", where=manifest, got=error, expected="lines of JSON") from error


def _source(row: Mapping[str, Any], folder: Path) -> Source:
    name, kind = str(row["id"]), row.get("type", "MonoCut")
    recording = row if "sources" in row else row.get("recording")
    if kind != "MonoCut" or recording is None:
        return Source(path=Path(name), refused=f"a {kind} without one recording is not read")
    sources = recording["sources"]
    if len(sources) != 1 or sources[0]["type"] != "file":
        kinds = " and ".join(source["type"] for source in sources)
        return Source(path=Path(name), refused=f"its source ({kinds}) is not read")
    path = folder / sources[0]["source"]
    path = path if exists(path) else Path(sources[0]["source"])
    if recording is row:
        return Source(path=path)
    channel = row.get("channel", 0)
    return Source(
        path=path,
        name=name,
        start_seconds=float(row["start"]),
        duration_seconds=float(row["duration"]),
        # One channel needs no choice, and is the mean.
        channel=int(channel) if len(sources[0].get("channels", [0])) > 1 else None,
    )
