"""A few seconds of hostile files, and all that once were faults."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import command

fuzz = command("fuzz")


def test_no_file_ends_in_more_than_one_line(tmp_path: Path) -> None:
    fuzzer = fuzz.Fuzzer(tmp_path, seed=0)
    fuzzer.replay()
    assert fuzzer.faults == []
    assert sum(counts["refused"] for counts in fuzzer.counts.values()) == len(fuzz.PAST)
    fuzzer.run(3.0)
    assert fuzzer.faults == []


def _endless(_folder: Path) -> object:
    while True:
        pass


@pytest.mark.parametrize(
    ("expected", "read"),
    [
        ("same", lambda _folder: 3),
        ("other", lambda _folder: 4),
        ("traceback", lambda _folder: 3 / 0),
        ("crash", lambda _folder: os.abort()),
        ("memory", lambda _folder: bytearray(10**13)),
        ("hang", _endless),
    ],
)
def test_outcomes_are_told_apart(
    expected: str, read: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz, "SECONDS", 2)
    ended, _said = fuzz.outcome(fuzz.Kind(file="", read=read), tmp_path, "3")
    assert ended == expected
