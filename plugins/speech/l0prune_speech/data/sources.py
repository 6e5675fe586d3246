"""What the paths given as data stand for: files, folders, manifests, shards and datasets."""

from collections.abc import Iterator
from os.path import exists, isdir, isfile
from pathlib import Path

from l0prune.errors import DataError
from l0prune_speech.data.containers import SHARD, Source, in_manifest, in_shard, is_manifest, is_packed
from l0prune_speech.data.dataset_names import is_dataset

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".opus")
UNREAD = (
    *(".m4a", ".aac", ".aiff", ".aif", ".aifc", ".wma", ".amr", ".awb", ".caf", ".au", ".sph", ".webm", ".mp4", ".mkv"),
    *(".3gp", ".mka", ".ape", ".wv", ".dsf", ".ac3", ".weba", ".oga", ".spx", ".alac"),
)
"""Endings of sound that is found in folders, and counted, but not read."""


def sources_under(path: Path) -> Iterator[Source]:
    """What a path stands for: files, and what is within shards and manifests."""
    if is_dataset(path):
        from l0prune_speech.data.hugging_face import in_dataset

        yield from in_dataset(path, SUFFIXES)
        return
    if is_manifest(path) and isfile(path):
        yield from in_manifest(path)
        return
    for file in _files_under(path):
        if file.suffix.lower() == SHARD and file.is_file():
            yield from in_shard(file, SUFFIXES)
        else:
            yield Source(path=file)


def _files_under(path: Path) -> Iterator[Path]:
    """The candidate files that a path stands for."""
    if isdir(path):
        files = sorted(file for file in path.rglob("*") if _is_candidate(file))
        if not files:
            raise DataError("no audio in this folder", where=path, expected=f"files ending in {', '.join(SUFFIXES)}")
        yield from files
    elif not exists(path):
        raise DataError("no such file or folder", where=path, hint="check the path")
    elif path.suffix.lower() == ".tsv":
        yield from _manifest_files(path)
    elif path.suffix.lower() in (*SUFFIXES, SHARD):
        yield path
    else:
        hint = "unpack it to a .tar: parts of a compressed one cannot be looked up" if is_packed(path) else None
        expected = f"a folder, a .tsv or .jsonl manifest, a .tar shard or a file ending in {', '.join(SUFFIXES)}"
        raise DataError("not an audio file", where=path, got=path.suffix or "no suffix", expected=expected, hint=hint)


def _is_candidate(path: Path) -> bool:
    """Whether a path found in a folder is sound, or a link that may have been meant as such."""
    if path.is_symlink() and not path.is_file():
        return path.is_dir() or not path.suffix or path.suffix.lower() in (*SUFFIXES, *UNREAD)
    return path.suffix.lower() in (*SUFFIXES, *UNREAD, SHARD) and path.is_file()


def _manifest_files(manifest: Path) -> Iterator[Path]:
    """The files a manifest lists; their lengths are left to the headers."""
    try:
        root_line, *lines = manifest.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeError) as error:
        raise DataError("manifest cannot be read", where=manifest, got=error, expected="UTF-8 text") from error
    root = manifest.parent / root_line.strip()
    if not root_line.strip() or not isdir(root):
        raise DataError(
            "manifest names no root folder", where=f"{manifest}:1", got=repr(root_line), expected="an existing folder"
        )
    for number, line in enumerate(lines, start=2):
        name, tab, num_samples = line.partition("\t")
        where = f"{manifest}:{number}"
        if name.strip() and tab and num_samples.strip().isdecimal() and "\0" not in name:
            if Path(name).is_absolute() or ".." in Path(name).parts:
                got, expected = repr(name), f"a path below {root}"
                raise DataError("manifest leads out of its folder", where=where, got=got, expected=expected)
            yield root / name
        elif line.strip():
            expected = "relative_path<TAB>num_samples"
            raise DataError("malformed manifest line", where=where, got=repr(line), expected=expected)
