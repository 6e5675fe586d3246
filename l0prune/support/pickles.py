"""What the pickles of a file that `torch.save` wrote would do, read without unpickling any."""

import pickletools
import warnings
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import IO, Any

_MOST_OPERATIONS = 300_000
"""Of two billion parameters with their optimizer's state there are 70,000."""
_MOST_LEVELS = 200
"""Objects within objects: Python's interpreter dies of tuples that are nested 100,000 deep."""
_ARCHIVE = b"PK\x03\x04"
"""How a zip archive begins."""
_LEGACY_PICKLES = 4
"""Before the weights of a file in torch's old format: magic number, version, system, content."""
_FILLING = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}
"""Operations that put objects into the first one they take."""


def pickled_names(path: Path, most: int = _MOST_OPERATIONS) -> set[str]:
    """Every class and function that the file's pickles name.

    Args:
        path: The file.
        most: Operations of a pickle: each number, name or container takes one or more.

    Raises:
        OSError: The file cannot be read.
        ValueError: It holds no pickles, or they are larger or deeper than torch writes them.
        zipfile.BadZipFile, LookupError, MemoryError, OverflowError: It is damaged.
    """
    names: set[str] = set()
    with warnings.catch_warnings():
        # Of damaged names; what is wrong with a file is the caller's to say, in one line.
        warnings.simplefilter("ignore")
        for stream in _pickles(path):
            for operation, argument in _operations(stream, most):
                if operation == "GLOBAL":
                    names.add(str(argument).replace(" ", "."))
    return names


def _pickles(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        is_archive = file.read(len(_ARCHIVE)) == _ARCHIVE
    if is_archive:
        with zipfile.ZipFile(path) as archive:
            # torch compresses nothing: what is larger than its file would inflate to gigabytes.
            if sum(part.file_size for part in archive.infolist()) > path.stat().st_size:
                raise ValueError("its parts are larger than the file")
            for name in archive.namelist():
                if name.endswith("data.pkl"):
                    yield BytesIO(archive.read(name))
    else:
        with path.open("rb") as file:
            for _ in range(_LEGACY_PICKLES):
                yield file


def _operations(stream: IO[bytes], most: int) -> Iterator[tuple[str, Any]]:
    """The operations of a pickle, each with its argument, as long as they nest no deeper than they may."""
    stack: list[int] = []
    marks: list[int] = []
    memo: dict[int, int] = {}
    argument: Any
    for number, (operation, argument, _position) in enumerate(pickletools.genops(stream)):
        yield operation.name, argument
        name, takes = operation.name, operation.stack_before
        if name == "MARK":
            marks.append(len(stack))
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif "PUT" in name:
            memo[int(argument)] = stack[-1]
        elif "GET" in name:
            stack.append(memo[int(argument)])
        else:
            marked = pickletools.markobject in takes
            begin = marks.pop() - takes.index(pickletools.markobject) if marked else len(stack) - len(takes)
            if begin < 0:
                raise ValueError("a pickle takes what is not there")
            taken = stack[begin:]
            del stack[begin:]
            within = taken[1:] if name in _FILLING else taken
            depth = max([1 + max(within, default=0), *taken[:1]])
            if depth > _MOST_LEVELS:
                raise ValueError("a pickle nested too deeply")
            if number > most:
                raise ValueError(f"a pickle of more than {most:,} operations")
            stack += [depth] * len(operation.stack_after)
