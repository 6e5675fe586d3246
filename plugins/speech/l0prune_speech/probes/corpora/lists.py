"""The text files that corpora come with: a record a line, its fields separated by white space."""

from collections.abc import Iterator
from pathlib import Path

from l0prune import DataError

LEXICON = "librispeech-lexicon.txt"


def records(file: Path, *, fields: int | None = None, expected: str) -> Iterator[tuple[str, list[str]]]:
    """Where each record stands, and its fields; blank lines are passed over.

    Args:
        file: UTF-8 text.
        fields: How many a record has; any number by default.
        expected: What a record looks like, for messages.

    Raises:
        DataError: The file cannot be read, or names the first line that is no record.
    """
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise DataError("list cannot be read", where=file, got=error.strerror) from error
    for number, line in enumerate(lines, start=1):
        where = f"{file}:{number}"
        try:
            found = line.decode("utf-8-sig").split()
        except UnicodeError as error:
            raise DataError("list cannot be read", where=where, got=_shown(line), expected="UTF-8 text") from error
        if b"\0" in line or (found and fields not in (None, len(found))):
            raise DataError("malformed list", where=where, got=_shown(line), expected=expected)
        if found:
            yield where, found


def read_lexicon(folder: Path) -> dict[str, tuple[str, ...]]:
    """The first pronunciation of each word, without stress; empty where there is no lexicon.

    Raises:
        DataError: A word of it has no phones.
    """
    lexicon: dict[str, tuple[str, ...]] = {}
    if (folder / LEXICON).is_file():
        for where, (word, *phones) in records(folder / LEXICON, expected="a word and its phones"):
            if not phones:
                raise DataError("word without phones", where=where, got=word)
            lexicon.setdefault(word, tuple(phone.rstrip("012") for phone in phones))
    return lexicon


def _shown(line: bytes) -> str:
    """A line that is refused, or how it begins."""
    return repr(line[:60])[1:]
