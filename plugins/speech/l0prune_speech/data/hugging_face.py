"""Clips in datasets of Hugging Face, with their labels. The only file that imports the library `datasets`.

A dataset on disk is a file of Arrow in which the bytes of each clip stand as they are. A clip is therefore a part of
that file, as it is in a shard: it is read from its place, by any process, in any order, without the library. What has
no such place (a stream, a selection) is copied to a shard in the cache first.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from l0prune.errors import DataError
from l0prune.support import cache_folder, write_atomic
from l0prune_speech.data.columns import COLUMNS, Labels, labels_in
from l0prune_speech.data.containers import Source, in_shard
from l0prune_speech.data.dataset_names import DatasetName, parse


def in_dataset(path: Path, suffixes: tuple[str, ...]) -> list[Source]:
    """The clips of a dataset and their labels.

    Args:
        path: "datasets:NAME", with options behind a question mark.
        suffixes: Of what is sound.

    Raises:
        DataError: The library is not installed, the dataset cannot be opened, or the column is not audio.
    """
    wanted = parse(path)
    with _library(path) as library:
        opened = _opened(library, wanted, path)
        columns = _columns(opened.features or {}, wanted, path)
        if not wanted.streaming and (found := files_in_place(opened, columns, wanted.rows)) is not None:
            return found
        rows = opened.select_columns([*columns.values()]).cast_column(columns["audio"], library.Audio(decode=False))
        return in_shard(_copied(rows, columns, wanted, path, suffixes), suffixes)


@contextmanager
def _library(path: Path) -> Iterator[Any]:
    """The library, without its bars; its errors are told in one line."""
    try:
        import datasets  # type: ignore[import-not-found]
    except ImportError as error:
        hint = "pip install 'l0prune[datasets]'"
        raise DataError("datasets is not installed", where=path, got=error, hint=hint) from error
    quiet = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield datasets
    except DataError:
        raise
    # Builders, file systems and the hub raise errors of many kinds.
    except Exception as error:
        # The library often wraps the error that says why.
        why = error.__cause__ or error
        got = next(iter(str(why).splitlines()), "") or type(why).__name__
        raise DataError("dataset cannot be read", where=path, got=got, hint="check its name and its split") from error
    finally:
        if not quiet:
            datasets.enable_progress_bars()


def _opened(library: Any, wanted: DatasetName, path: Path) -> Any:
    """One split of a dataset."""
    folder = Path(wanted.path)
    if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
        found = library.load_from_disk(wanted.path)
        if isinstance(found, dict):
            if wanted.split not in found:
                raise DataError("no such split", where=path, got=wanted.split, expected=", ".join(found))
            found = found[wanted.split]
        return found.to_iterable_dataset() if wanted.streaming else found
    if folder.is_file() and folder.suffix == ".parquet":
        given: dict[str, Any] = {"path": "parquet", "data_files": {wanted.split: wanted.path}}
    else:
        given = {"path": wanted.path, "name": wanted.name}
    return library.load_dataset(**given, split=wanted.split, streaming=wanted.streaming)


def _columns(features: Mapping[str, Any], wanted: DatasetName, path: Path) -> dict[str, str]:
    """The names of the columns of audio and of labels."""
    audio = [name for name, feature in features.items() if _is_audio(feature)]
    for key, name in wanted.columns.items():
        if name not in features:
            raise DataError("no such column", where=path, got=f"{key}={name}", expected=", ".join(features) or None)
    chosen = wanted.columns.get("audio") or next(iter(audio), "")
    if chosen not in audio:
        got = f"{chosen}: {type(features[chosen]).__name__}" if chosen else ", ".join(features)
        expected = f"a column of audio{': ' if audio else ''}{', '.join(audio)}"
        raise DataError("the column is not audio", where=path, got=got, expected=expected)
    lower = {name.lower(): name for name in features}
    usual = {holds: next((lower[name] for name in names if name in lower), "") for holds, names in COLUMNS.items()}
    labels = {holds: wanted.columns.get(holds) or name for holds, name in usual.items()}
    return {"audio": chosen, **{holds: name for holds, name in labels.items() if name}}


def _is_audio(feature: Any) -> bool:
    """Whether a column is of the type Audio, or holds files and their names."""
    return type(feature).__name__ == "Audio" or (isinstance(feature, dict) and {*feature} == {"bytes", "path"})


def files_in_place(opened: Any, columns: Mapping[str, str], most: int | None) -> list[Source] | None:
    """Clips as parts of the files of Arrow; None where they have no place there."""
    import pyarrow  # type: ignore[import-not-found]

    files = [Path(file["filename"]) for file in opened.cache_files]
    # Rows that were chosen or sorted stand elsewhere in the files.
    if not files or getattr(opened, "_indices", None) is not None:
        return None
    names = {holds: name for holds, name in columns.items() if holds != "audio"}
    found: list[Source] = []
    for file in files:
        with pyarrow.memory_map(str(file)) as mapped:
            whole = mapped.read_buffer(mapped.size())
            mapped.seek(0)
            for batch in pyarrow.ipc.open_stream(mapped):
                audio = _column(batch, columns["audio"])
                placed = _places(audio.field("bytes"), whole)
                if placed is None:
                    return None
                paths = audio.field("path").to_pylist()
                values = {
                    holds: batch.column(batch.schema.get_field_index(n)).to_pylist() for holds, n in names.items()
                }
                for row, (place, sound) in enumerate(zip(placed, paths, strict=True)):
                    labels = _labels({holds: column[row] for holds, column in values.items()}, opened.features, names)
                    found.append(_source(file, len(found), place, sound, labels))
                del audio, batch
    return found[:most]


def _column(batch: Any, name: str) -> Any:
    return batch.column(batch.schema.get_field_index(name))


def _places(column: Any, whole: Any) -> Sequence[tuple[int, int] | None] | None:
    """The first byte and the size of each value within a mapped file; None where they are not in it."""
    import pyarrow  # type: ignore[import-not-found]

    _, offsets, content = column.buffers()
    if content is None or column.null_count == len(column):
        return [None] * len(column)
    first = content.address - whole.address
    if not 0 <= first <= whole.size - content.size:
        return None
    kind = np.int32 if column.type == pyarrow.binary() else np.int64
    edges = np.frombuffer(offsets, dtype=kind)[column.offset : column.offset + len(column) + 1]
    missing = column.is_null().to_pylist()
    pairs = zip(edges[:-1].tolist(), edges[1:].tolist(), missing, strict=True)
    return [None if absent else (first + start, end - start) for start, end, absent in pairs]


def _source(file: Path, row: int, place: tuple[int, int] | None, sound: str | None, labels: Labels) -> Source:
    name = f"row {row} {Path(sound).name}" if sound else f"row {row}"
    if place is not None:
        return Source(path=file, name=name, offset=place[0], size=place[1], labels=labels)
    if not sound:
        return Source(path=file, name=name, refused="a row without audio")
    return Source(path=Path(sound), labels=labels)


def _labels(row: Mapping[str, Any], features: Mapping[str, Any], names: Mapping[str, str]) -> Labels:
    """The labels of a row; of classes their names."""
    named = {}
    for holds, value in row.items():
        feature = features[names[holds]]
        is_class = hasattr(feature, "int2str") and isinstance(value, int) and value >= 0
        named[holds] = feature.int2str(value) if is_class else value
    return labels_in(named)


def _copied(rows: Any, columns: Mapping[str, str], wanted: DatasetName, path: Path, suffixes: tuple[str, ...]) -> Path:
    """A shard in the cache with a stream's clips and labels, which is made once."""
    folder = cache_folder()
    if folder is None:
        raise DataError("nowhere to keep a stream", where=path, hint="set XDG_CACHE_HOME to a folder")
    shard = folder / "datasets" / f"{_fingerprint(path, Path(wanted.path))}.tar"
    if not shard.is_file():
        shard.parent.mkdir(parents=True, exist_ok=True)
        chosen = rows.take(wanted.rows) if wanted.rows else rows
        write_atomic(shard, lambda partial: _write(partial, chosen, columns, suffixes))
    return shard


def _fingerprint(path: Path, files: Path) -> str:
    """Of a dataset's name, and of the files that it has on this disk, by size and time."""
    found = sorted(file for file in (files, *files.rglob("*")) if file.is_file())
    stats = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in found]
    return hashlib.sha256(repr((str(path), stats)).encode()).hexdigest()[:16]


def _write(shard: Path, rows: Any, columns: Mapping[str, str], suffixes: tuple[str, ...]) -> None:
    """Each clip under its number, with its labels beside it."""
    names = {holds: name for holds, name in columns.items() if holds != "audio"}
    with tarfile.open(shard, "w") as archive:
        for number, row in enumerate(rows):
            audio = row[columns["audio"]] or {}
            content, sound = audio.get("bytes"), Path(audio.get("path") or "")
            if content is None and sound.name:
                content = sound.read_bytes()
            if content is None:
                continue
            ending = sound.suffix.lower() if sound.suffix.lower() in suffixes else _ending(content)
            _add(archive, f"{number:08d}{ending}", content)
            if labels := _labels({holds: row[name] for holds, name in names.items()}, rows.features, names):
                _add(archive, f"{number:08d}.json", json.dumps(dict(labels)).encode())


_MAGIC: Sequence[tuple[bytes, str]] = ((b"RIFF", ".wav"), (b"fLaC", ".flac"), (b"OggS", ".ogg"))


def _ending(content: bytes) -> str:
    """Of sound without a name."""
    return next((ending for magic, ending in _MAGIC if content.startswith(magic)), ".mp3")


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))
