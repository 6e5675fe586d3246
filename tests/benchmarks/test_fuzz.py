"""A few seconds of hostile files, and all that once were faults."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from l0bench.fuzzing import children, fuzzer
from l0bench.fuzzing.changes import Changed
from l0bench.fuzzing.counts import Counts
from l0bench.fuzzing.past import PAST
from l0bench.fuzzing.readers import READERS, Reader


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> fuzzer.Fuzzer:
    return fuzzer.Fuzzer(tmp_path_factory.mktemp("samples"), seed=0)


def test_what_once_was_a_fault_is_refused_in_one_line(fuzzed: fuzzer.Fuzzer) -> None:
    ended = {label: (batch.faults, batch.counts["refused"]) for label, batch in fuzzed.replay()}
    assert ended == dict.fromkeys(PAST, ([], 1))


def test_no_file_ends_in_more_than_one_line(fuzzed: fuzzer.Fuzzer, tmp_path: Path) -> None:
    counts = Counts(tmp_path / "fuzz.json")
    for name, batch in fuzzed.turns(3.0, {}):
        assert batch.faults == [], name
        counts.add(0, name, batch)
    counts.write()
    # Another run goes on where this one ended.
    begun = Counts(tmp_path / "fuzz.json").begun(0)
    assert begun == {name: batch["inputs"] for name, batch in zip(READERS, counts.rows, strict=True)}
    assert all(begun.values())
    for name, batch in fuzzed.turns(0.1, begun):
        assert batch.next > begun[name]
        assert batch.counts.total() == batch.next - begun[name]
        counts.add(0, name, batch)
    counts.write()
    rows = json.loads((tmp_path / "fuzz.json").read_text())["rows"]
    assert [row["reader"] for row in rows] == [*READERS]
    assert all(row["inputs"] == sum(row[outcome] for outcome in children.OUTCOMES) for row in rows)
    assert f"| all | {sum(row['inputs'] for row in rows):,} |" in (tmp_path / "fuzz.md").read_text()


def test_an_input_is_made_again_by_its_number(fuzzed: fuzzer.Fuzzer) -> None:
    for name in READERS:
        assert fuzzed.input(name, 7) == fuzzed.input(name, 7)
    assert len({fuzzed.input("safetensors", number).content for number in range(9)}) > 5


def _endless(_folder: Path) -> object:
    while True:
        pass


ENDINGS: list[tuple[str, Callable[[Path], object]]] = [
    ("same", lambda _folder: 3),
    ("other", lambda _folder: 4),
    ("traceback", lambda _folder: 3 / 0),
    ("crash", lambda _folder: os.abort()),
    ("memory", lambda _folder: bytearray(10**13)),
    ("hang", _endless),
]


@pytest.mark.parametrize(("expected", "read"), ENDINGS)
def test_outcomes_are_told_apart_and_the_input_is_named(
    expected: str, read: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "SECONDS", 1.0)
    (tmp_path / "file").write_bytes(b"whole")

    def read_third(folder: Path) -> object:
        return read(folder) if (folder / "file").read_bytes() == b"2" else 3

    def make(number: int) -> Changed:
        return Changed(content=str(number).encode())

    reader = Reader(file="file", read=read_third, sealed=True)
    batch = children.read_batch(reader, tmp_path, "3", make, range(4), 60.0)
    ended_the_child = expected in ("crash", "hang")
    assert batch.next == (3 if ended_the_child else 4)
    assert batch.counts[expected] == (4 if expected == "same" else 1)
    assert batch.counts["same"] == (2 if ended_the_child else 4 if expected == "same" else 3)
    assert [(fault["number"], fault["outcome"]) for fault in batch.faults] == [(2, expected)] * (expected != "same")
    assert (tmp_path / "file").read_bytes() == b"whole"
    # What is no longer what a checksum says is a change alone, where the checksum was taken out.
    resealed = Changed(content=b"2", resealed=True)
    if expected == "other":
        assert children.ending(reader, tmp_path, "4", resealed) == ("changed", "")


def test_no_input_is_begun_after_the_time(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    reader = Reader(file="file", read=lambda _folder: time.sleep(0.01))
    batch = children.read_batch(reader, tmp_path, "None", lambda _: Changed(content=b""), range(10**6), 0.1)
    assert 0 < batch.counts["same"] == batch.next <= 11
