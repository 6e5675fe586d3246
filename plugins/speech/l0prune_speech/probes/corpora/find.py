"""Where labelled sets come from: the embedded one, or folders whose layout tells what they are."""

from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path

from l0prune import DataError, RunError
from l0prune.support import read_json
from l0prune_speech.probes.corpora import folders, librispeech, speech_commands, tables, voxceleb
from l0prune_speech.probes.corpora.manifest import FORMAT, read_manifest
from l0prune_speech.probes.labelled import LabelledSet

_EXPECTED = (
    f"a table of labels (csv or tsv: {tables.EXPECTED}), a folder a class, a manifest.json of labelled speech, or the "
    "layout of Speech Commands (testing_list.txt), LibriSpeech (train-*/, test-*/) or VoxCeleb1 (wav/, iden_split.txt "
    "or veri_test.txt)"
)


def open_sets(data: Sequence[str], tasks: tuple[str, ...] = ()) -> dict[str, LabelledSet]:
    """The set of each task.

    Args:
        data: Folders and tables; the embedded set by default. Where two of them serve a task, the first does.
        tasks: Those that are asked for; all that the labels allow by default.

    Raises:
        DataError: A folder has no known layout, or its labels do not match its audio.
    """
    if not data:
        with as_file(files("l0prune_speech") / "assets" / "labelled") as folder:
            return _open(folder, tasks)
    found: dict[str, LabelledSet] = {}
    for path in data:
        found = _open(Path(path), tasks) | found
    return found


def _open(folder: Path, tasks: tuple[str, ...]) -> dict[str, LabelledSet]:
    try:
        if folder.is_file() and folder.suffix.lower() in tables.SUFFIXES_OF_TABLES:
            return tables.read_sets(folder)
        there = folder.is_dir()
    except OSError as error:
        raise DataError("no such folder", where=folder, got=error.strerror, expected=_EXPECTED) from error
    if not there:
        raise DataError("no such folder", where=folder, expected=_EXPECTED)
    if (folder / "manifest.json").is_file():
        return read_manifest(folder, _content(folder / "manifest.json"))
    for layout in (speech_commands, librispeech, voxceleb):
        if layout.is_here(folder):
            return layout.read_sets(folder)
    if tables.is_here(folder):
        return tables.read_sets(folder)
    if folders.is_here(folder):
        return folders.read_sets(folder, tasks)
    raise DataError("not a labelled set", where=folder, expected=_EXPECTED)


def _content(path: Path) -> dict[str, object]:
    try:
        content = read_json(path)
    except RunError as error:
        raise DataError("manifest cannot be read", where=path, got=error.got) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        got = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise DataError("not a manifest of labelled speech", where=path, got=got, expected=f"format {FORMAT}")
    return content
