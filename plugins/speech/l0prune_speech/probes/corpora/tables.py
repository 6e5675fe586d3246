"""Labels in a table, csv or tsv with a header, beside the audio that it names."""

import csv
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from l0prune import DataError
from l0prune.support import listed
from l0prune_speech.data import SUFFIXES, Clip, find_clips
from l0prune_speech.probes.corpora.lists import LEXICON, read_lexicon
from l0prune_speech.probes.corpora.rows import Row, sets_of
from l0prune_speech.probes.corpora.splits import SPLITS
from l0prune_speech.probes.labelled import LabelledSet, segment

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "path": ("path", "file", "filename", "file_name", "audio", "audio_path", "audio_file", "audio_filepath", "wav"),
    "text": ("text", "transcript", "transcription", "sentence", "normalized_text"),
    "phonemes": ("phonemes", "phones", "phoneme_sequence"),
    "speaker": ("speaker", "speaker_id", "spk", "spk_id", "client_id"),
    "label": ("label", "keyword", "class", "word", "command", "category"),
    "split": ("split", "set", "subset", "partition"),
    "start_seconds": ("start_seconds",),
    "duration_seconds": ("duration_seconds",),
}
"""What each column may be called, whatever the case; spaces and hyphens are as underscores."""
SUFFIXES_OF_TABLES = (".csv", ".tsv")
EXPECTED = (
    "a header with a column path (file, audio), and one of text (transcript, sentence), phonemes, speaker, label "
    "(keyword)"
)


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A row as the table has it."""

    where: str
    values: Mapping[str, str]
    """By the names of `COLUMNS`, without empty ones."""


def is_here(folder: Path) -> bool:
    """Whether a folder holds tables of labels."""
    return bool(_tables(folder))


def read_sets(path: Path) -> dict[str, LabelledSet]:
    """The sets that the labels of one table, or of a folder's, allow.

    Rows without audio and audio without a row are left out, and told.

    Args:
        path: A table, or a folder with one, or with a table for each part (train.tsv, test.tsv).

    Raises:
        DataError: It is no table, no clip of it can be read, or its labels serve no task.
    """
    files = [path] if path.is_file() else _tables(path)
    lines = [line for file in files for line in _lines(file)]
    folder = path.parent if path.is_file() else path
    lexicon = read_lexicon(folder)
    clips, notes = _audio(lines, folder, str(path))
    rows, words = [], 0
    for line in lines:
        values, clip = line.values, clips.get(line.where)
        split = SPLITS.get(values.get("split", "").lower(), "?" if "split" in values else "")
        if split == "?":
            raise DataError(
                "malformed table", where=line.where, got=f"split {values['split']}", expected=", ".join(SPLITS)
            )
        if clip is None or ("split" in values and not split):
            continue
        spoken = _spoken(values, lexicon)
        words += "text" in values and not spoken
        rows.append(
            Row(
                segment=segment(clip, **_place(line)),
                split=split,
                speaker=values.get("speaker", ""),
                phones=spoken,
                label=values.get("label", ""),
            )
        )
    if words:
        why = "words that the lexicon lacks" if lexicon else f"no column phonemes and no {LEXICON}"
        notes.append(f"{path}: {words} transcripts serve no phone recognition: {why}")
    silent = sum("text" not in line.values and "phonemes" not in line.values for line in lines)
    if silent and any("text" in line.values for line in lines):
        notes.append(f"{path}: {silent} clips have no transcript")
    found = sets_of(rows, str(path), notes)
    if not found:
        got = ", ".join(sorted({name for line in lines for name in line.values}))
        raise DataError(
            "the labels serve no task",
            where=path,
            got=f"columns {got}; {'; '.join(notes) or f'{len(rows)} clips'}",
            expected="two speakers or more, two labels or more, or phonemes, each with three clips or more",
        )
    return found


def _tables(folder: Path) -> list[Path]:
    """Tables of labels: one for each part where their names say so, else the only one."""
    tables = [path for path in sorted(folder.glob("*")) if path.suffix.lower() in SUFFIXES_OF_TABLES and _header(path)]
    parts = [path for path in tables if SPLITS.get(path.stem.lower())]
    if {"train", "test"} <= {SPLITS[path.stem.lower()] for path in parts}:
        return parts
    if len(tables) > 1:
        got = listed([path.name for path in tables])
        raise DataError("several tables of labels", where=folder, got=got, hint="name one of them: --data FILE")
    return tables


def _dialect(path: Path) -> tuple[str, list[str]]:
    """What stands between the columns of a table, and its first line in columns."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
    except (OSError, UnicodeError) as error:
        raise DataError("table cannot be read", where=path, got=error, expected="UTF-8 text") from error
    delimiter = max("\t,;|", key=first.count)
    return delimiter, next(csv.reader([first], delimiter=delimiter), [])


def _header(path: Path) -> list[str]:
    """The known name of each column, "" of others; nothing where the first line is no header of labels."""
    _, first = _dialect(path)
    names = ["_".join(cell.strip().lower().replace("-", " ").split()) for cell in first]
    known = [next((column for column, others in COLUMNS.items() if name in others), "") for name in names]
    labels = {"text", "phonemes", "speaker", "label"} & set(known)
    return known if "path" in known and labels else []


def _lines(path: Path) -> Iterator[_Line]:
    """The rows of a table; the table's name tells their part where no column does."""
    header, (delimiter, first) = _header(path), _dialect(path)
    if not header:
        raise DataError("not a table of labels", where=path, got=f"header {listed(first)}", expected=EXPECTED)
    if twice := [name for name, count in Counter(filter(None, header)).items() if count > 1]:
        raise DataError("two columns of one kind", where=path, got=twice[0], expected="one of each")
    part = {"split": path.stem} if path.stem.lower() in SPLITS else {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            # In tsv a quotation mark is a character like others.
            quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
            reader = csv.reader(file, delimiter=delimiter, quoting=quoting)
            next(reader)
            for cells in reader:
                named = zip(header, cells, strict=False)
                values = {name: cell.strip() for name, cell in named if name and cell.strip()}
                if values:
                    where = f"{path}:{reader.line_num}"
                    if "path" not in values:
                        raise DataError("row names no audio", where=where, expected=EXPECTED)
                    yield _Line(where=where, values=part | values)
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError("table cannot be read", where=path, got=error, expected="UTF-8 text") from error


def _audio(lines: Sequence[_Line], folder: Path, name: str) -> tuple[dict[str, Clip], list[str]]:
    """The clip of each row by its place, and what to say of rows without audio and audio without rows."""
    there = [file for file in sorted(folder.rglob("*")) if file.suffix.lower() in SUFFIXES and file.is_file()]
    by_name: dict[str, list[Path]] = defaultdict(list)
    for file in there:
        for key in {file.name, file.stem}:
            by_name[key].append(file)

    def of(path: str) -> Path | None:
        """The file that a row names: its path, or its name alone where that is no other's."""
        direct = folder / path
        if direct.is_file() and direct.suffix.lower() in SUFFIXES:
            return direct
        same = by_name.get(Path(path).name, [])
        return same[0] if len(same) == 1 else None

    named = {line.where: of(line.values["path"]) for line in lines}
    files = list(dict.fromkeys(file for file in named.values() if file is not None))
    if not files:
        got, hint = (
            lines[0].values["path"] if lines else "no row",
            f"paths begin at {folder}; is it one of {', '.join(SUFFIXES)}?",
        )
        raise DataError("labels without audio", where=name, got=got, hint=hint)
    found = find_clips(files, min_seconds=0.0)
    clips = {clip.path: clip for clip in found.clips}
    notes = []
    if lost := sorted(line.values["path"] for line in lines if clips.get(named[line.where] or Path()) is None):
        notes.append(f"{name}: {len(lost)} rows without audio left out: {listed(lost)}")
    if loose := sorted(
        {file.relative_to(folder).as_posix() for file in there} - {_below(file, folder) for file in files}
    ):
        notes.append(f"{name}: {len(loose)} clips without a row left out: {listed(loose)}")
    heard = {where: clips.get(file) for where, file in named.items() if file is not None}
    return {where: clip for where, clip in heard.items() if clip is not None}, notes


def _below(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else ""


def _place(line: _Line) -> dict[str, float]:
    """The part of the clip that a row is about."""
    try:
        return {key: float(line.values[key]) for key in ("start_seconds", "duration_seconds") if key in line.values}
    except ValueError as error:
        raise DataError("malformed table", where=line.where, got=error, expected="seconds") from error


def _spoken(values: Mapping[str, str], lexicon: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The phones of a row: its own, or those of its words where the lexicon has them all."""
    if "phonemes" in values:
        return tuple(values["phonemes"].split())
    words = [word.strip('.,;:!?"()').upper() for word in values.get("text", "").split()]
    words = [word for word in words if word]
    return tuple(phone for word in words for phone in lexicon[word]) if words and set(words) <= lexicon.keys() else ()
