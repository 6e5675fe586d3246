"""Audio within larger files: shards of WebDataset (tar), and the recordings and cuts that manifests of lhotse list."""

import gzip
import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from os.path import exists
from pathlib import Path
from typing import Any, BinaryIO

from l0prune.errors import DataError
from l0prune.support import parse_json
from l0prune_speech.data.columns import Labels, labels_in

SHARD = ".tar"
MANIFESTS = (".jsonl", ".jsonl.gz")
_PACKED = (".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")
_LONGEST_LINE = 2**24
_LONGEST_LABEL = 2**20
_BESIDE = {".txt": "text", ".cls": "label", ".json": ""}
"""Endings of files that hold the label of a clip of the same name, or a table of labels."""


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
    labels: Labels = ()
    """What is said in it, which class it is of, who speaks."""


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
    """The sound in a shard, with the labels beside it; of a damaged one nothing but that.

    Args:
        shard: A tar file that is not compressed.
        suffixes: Of what is sound.
    """
    found: list[Source] = []
    labels: dict[str, Labels] = {}
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                if member.isfile() and member.name.lower().endswith(suffixes):
                    found.append(Source(path=shard, name=member.name, offset=member.offset_data, size=member.size))
                elif member.isfile() and member.size <= _LONGEST_LABEL and _ending(member.name) in _BESIDE:
                    key = _key(member.name)
                    labels[key] = (*labels.get(key, ()), *_beside(archive, member))
            ends = archive.offset
        with shard.open("rb") as file:
            file.seek(ends)
            # A header that cannot be read ends the list without a word.
            if any(file.read(tarfile.BLOCKSIZE)):
                raise tarfile.ReadError("bad header")
    except (tarfile.TarError, OSError, EOFError, ValueError):
        return [Source(path=shard, refused="damaged shard")]
    if not found:
        return [Source(path=shard, refused="a shard without sound")]
    return [replace(source, labels=labels.get(_key(source.name), ())) for source in found]


def _key(name: str) -> str:
    """What the files of one example have in common: their name up to the first dot."""
    folder, _, file = name.rpartition("/")
    return f"{folder}/{file.partition('.')[0]}"


def _ending(name: str) -> str:
    return f".{name.rpartition('.')[2].lower()}"


def _beside(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Labels:
    """The labels in a file of a shard; none where it holds something else."""
    file = archive.extractfile(member)
    assert file is not None
    try:
        text = file.read().decode("utf-8-sig").strip()
        if holds := _BESIDE[_ending(member.name)]:
            return ((holds, text),) if text else ()
        return labels_in(parse_json(text))
    except (ValueError, AttributeError):
        return ()


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
        labels=_supervised(row.get("supervisions") or []),
    )


def _supervised(supervisions: Sequence[Mapping[str, Any]]) -> Labels:
    """What is said in a cut, in the order of time, and by whom if it is one."""
    spoken = sorted(supervisions, key=lambda one: float(one.get("start", 0)))
    text = " ".join(str(one["text"]).strip() for one in spoken if one.get("text"))
    speakers = {str(one["speaker"]) for one in spoken if one.get("speaker")}
    return labels_in({"text": text, "speaker": speakers.pop() if len(speakers) == 1 else None})
