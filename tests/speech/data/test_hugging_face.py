"""Clips in datasets of Hugging Face are what the files were from which the dataset was made."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from l0prune_speech.data import find_clips, find_labelled, read
from l0prune_speech.data.hugging_face import files_in_place

from l0prune.errors import DataError

datasets = pytest.importorskip("datasets")

NAMES = ("NO", "YES")


def encoded(number: int, kind: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, waveform(number), 16_000, format=kind, subtype="PCM_16")
    return file.getvalue()


def waveform(number: int) -> np.ndarray:
    return np.round(3_000 * np.random.default_rng(number).standard_normal(8_000 + 100 * number)) / 2**15


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Five clips with what is said and a class; one without a name, one as a file of its own, one missing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "3.wav").write_bytes(encoded(3))
    audio = [
        {"bytes": encoded(0), "path": "0.wav"},
        {"bytes": encoded(1, "FLAC"), "path": None},
        {"bytes": encoded(2), "path": "2.wav"},
        {"bytes": None, "path": str(tmp_path / "3.wav")},
        None,
    ]
    features = datasets.Features(
        {
            "number": datasets.Value("int64"),
            "speech": datasets.Audio(decode=False),
            "sentence": datasets.Value("string"),
            "label": datasets.ClassLabel(names=list(NAMES)),
        }
    )
    import pyarrow

    table = {
        "number": [*range(5)],
        "speech": audio,
        "sentence": [f"word {number}" for number in range(5)],
        "label": [number % 2 for number in range(5)],
    }
    # As the library's own encoding of Audio makes it, which needs torchcodec.
    encoded_rows = pyarrow.table(table, schema=features.arrow_schema)
    return datasets.Dataset(encoded_rows, info=datasets.DatasetInfo(features=features))


def found(place: object, query: str = "", holds: str = "text") -> list[tuple[torch.Tensor, str]]:
    clips = find_labelled([Path(f"datasets:{place}{query}")], holds, min_seconds=0.1)
    assert not clips.unlabelled
    return [(read(one.clip), one.label) for one in clips.labelled]


def assert_same(heard: list[tuple[torch.Tensor, str]], numbers: list[int]) -> None:
    assert [text for _, text in heard] == [f"word {number}" for number in numbers]
    for (wave, _), number in zip(heard, numbers, strict=True):
        assert np.array_equal(wave.numpy(), waveform(number).astype(np.float32))


@pytest.mark.parametrize("query", ["", "?streaming=true"])
def test_a_saved_dataset_gives_its_clips_and_labels(rows: Any, tmp_path: Path, query: str) -> None:
    rows.save_to_disk(tmp_path / "saved", num_shards=2)
    assert_same(found(tmp_path / "saved", query), [0, 1, 2, 3])
    assert [label for _, label in found(tmp_path / "saved", query, "label")] == ["NO", "YES", "NO", "YES"]
    if query:
        # Once copied it is not read again, unless it has changed.
        (shard,) = (tmp_path / "cache" / "l0prune" / "datasets").iterdir()
        time = shard.stat().st_mtime_ns
        assert_same(found(tmp_path / "saved", query), [0, 1, 2, 3])
        assert shard.stat().st_mtime_ns == time
        assert_same(found(tmp_path / "saved", f"{query}&rows=2"), [0, 1])
    else:
        # A clip is a part of the dataset's file: nothing is copied.
        clips = find_clips([Path(f"datasets:{tmp_path / 'saved'}")], min_seconds=0.1)
        assert {clip.path.suffix for clip in clips.clips} == {".arrow"}
        assert "row 4 (a row without audio)" in clips.describe()
        part = {"start_seconds": 0.1, "duration_seconds": 0.2}
        assert torch.equal(read(clips.clips[2], **part), read(clips.clips[2])[1_600:4_800])


def test_splits_parquet_and_selections(rows: Any, tmp_path: Path) -> None:
    whole = datasets.DatasetDict({"train": rows, "test": rows.select([2, 0])})
    whole.save_to_disk(tmp_path / "both")
    assert_same(found(tmp_path / "both", "?split=test"), [2, 0])
    rows.to_parquet(tmp_path / "rows.parquet")
    assert_same(found(tmp_path / "rows.parquet", "?streaming=true&audio=speech&text=sentence"), [0, 1, 2, 3])


def test_files_that_a_dataset_names_are_read_where_they_are(rows: Any, tmp_path: Path) -> None:
    import pyarrow

    # Such are the files that the library itself makes of a folder of sound.
    with (
        pyarrow.OSFile(str(tmp_path / "rows.arrow"), "wb") as file,
        pyarrow.ipc.new_stream(file, rows.data.schema) as out,
    ):
        out.write_table(rows.data.table.slice(3, 1))
        out.write_table(rows.data.table.slice(1, 2))
    opened = SimpleNamespace(cache_files=[{"filename": str(tmp_path / "rows.arrow")}], features=rows.features)
    first, *others = files_in_place(opened, {"audio": "speech", "text": "sentence"}, None) or []
    assert (first.path, first.offset, dict(first.labels)) == (tmp_path / "3.wav", None, {"text": "word 3"})
    assert [dict(one.labels)["text"] for one in others] == ["word 1", "word 2"]
    content = (tmp_path / "rows.arrow").read_bytes()
    assert [content[one.offset : (one.offset or 0) + one.size] for one in others] == [encoded(1, "FLAC"), encoded(2)]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?audio=sentence", r"the column is not audio: .*got sentence: Value, expected a column of audio: speech"),
        ("?audio=sound", r"no such column: .*got audio=sound, expected number, speech, sentence, label"),
        ("?splits=train", r"no such option of a dataset: .*got splits.*split"),
        ("?rows=0", r"wrong option of a dataset: .*got rows=0, expected 1 or more"),
        ("?streaming=yes", r"wrong option of a dataset: .*expected true or false"),
        ("?text=", r"an option of a dataset is empty: .*got text"),
        ("x", r"dataset cannot be read: .*savedx "),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(rows: Any, tmp_path: Path, query: str, words: str) -> None:
    rows.save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match=words) as told:
        found(tmp_path / "saved", query)
    assert "\n" not in str(told.value)


def test_a_dataset_without_audio_names_its_columns(rows: Any, tmp_path: Path) -> None:
    rows.remove_columns("speech").save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match=r"the column is not audio: .*got number, sentence, label, expected a column"):
        found(tmp_path / "saved")
