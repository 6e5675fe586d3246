"""How a dataset of Hugging Face is named in the place of a path."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

from l0prune.errors import DataError, nearest
from l0prune_speech.data.columns import COLUMNS

DATASETS = "datasets:"
"""What such a name begins with."""
_OPTIONS = ("split", "name", "audio", "text", "label", "speaker", "streaming", "rows")


@dataclass(frozen=True, kw_only=True)
class DatasetName:
    """What "datasets:NAME?split=train&text=sentence" says."""

    path: str
    """A folder, a file of Parquet, or a name of the hub."""
    split: str = "train"
    name: str | None = None
    """Of a configuration: a language, for example."""
    columns: Mapping[str, str]
    """What is given of audio, text, label and speaker."""
    streaming: bool = False
    rows: int | None = None
    """At most so many of a stream; all by default."""


def parse(path: Path) -> DatasetName:
    """Read the name of a dataset.

    Raises:
        DataError: It has an option that there is not, or a wrong value.
    """
    text = str(path).partition(":")[2]
    place, _, query = text.partition("?")
    given = dict(parse_qsl(query, keep_blank_values=True))
    for key, value in given.items():
        if key not in _OPTIONS:
            raise DataError("no such option of a dataset", where=path, got=key, hint=nearest(key, _OPTIONS))
        if not value:
            raise DataError("an option of a dataset is empty", where=path, got=key)
    streaming, rows = given.get("streaming", "false"), given.get("rows")
    if streaming not in ("true", "false"):
        raise DataError("wrong option of a dataset", where=path, got=f"streaming={streaming}", expected="true or false")
    if rows is not None and not (rows.isdecimal() and int(rows)):
        raise DataError("wrong option of a dataset", where=path, got=f"rows={rows}", expected="1 or more")
    if not place:
        raise DataError("a dataset without a name", where=path, expected="datasets:NAME?split=train")
    return DatasetName(
        path=place,
        split=given.get("split", "train"),
        name=given.get("name"),
        columns={key: given[key] for key in ("audio", *COLUMNS) if key in given},
        streaming=streaming == "true",
        rows=int(rows) if rows else None,
    )


def is_dataset(path: Path) -> bool:
    """Whether a path names a dataset."""
    return str(path).startswith(DATASETS)
