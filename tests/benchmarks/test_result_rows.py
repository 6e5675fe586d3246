"""benchmarks/result_rows.py: rows as they come, and what is there is not run again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from l0bench.result_rows import ResultRows, in_processes

from l0prune import RunError

IDENTITY = ("label", "seed")
WISHES = [{"label": label, "seed": seed} for label in "ab" for seed in range(3)]


@given(st.sets(st.integers(0, 5)), st.lists(st.integers(0, 5)))
def test_missing_is_what_was_wished_and_is_not_there(there: set[int], wished: list[int]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        rows = ResultRows(Path(folder) / "rows.jsonl", IDENTITY)
        for i in there:
            rows.append(WISHES[i] | {"score": i})
        missing = rows.missing([WISHES[i] for i in wished])
    assert {(row["label"], row["seed"]) for row in missing} == {
        (WISHES[i]["label"], WISHES[i]["seed"]) for i in set(wished) - there
    }
    assert len(missing) == len(set(wished) - there)


def test_the_last_of_equal_rows_counts(tmp_path: Path) -> None:
    rows = ResultRows(tmp_path / "rows.jsonl", IDENTITY)
    for score in (1, 2):
        rows.append(WISHES[0] | {"score": score})
    assert [row["score"] for row in rows.read()] == [2]


def test_rows_of_another_commit_can_be_owed_again(tmp_path: Path) -> None:
    rows = ResultRows(tmp_path / "rows.jsonl", IDENTITY)
    rows.append(WISHES[0] | {"commit": "old"})
    assert rows.missing(WISHES[:1]) == []
    assert rows.missing(WISHES[:1], commit="new") == WISHES[:1]


def test_a_line_that_was_broken_off_is_owed_again_and_spoils_no_other(tmp_path: Path) -> None:
    rows = ResultRows(tmp_path / "rows.jsonl", IDENTITY)
    rows.append(WISHES[0])
    with open(rows.path, "a") as file:
        file.write('{"label": "a", "se')
    assert rows.read() == WISHES[:1]
    assert rows.missing(WISHES[:2]) == [WISHES[1]]


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    rows = ResultRows(tmp_path / "rows.jsonl", IDENTITY)
    rows.path.write_text('{"label": "a"\n{"label": "b", "seed": 0}\n')
    with pytest.raises(RunError, match=r"rows.jsonl, line 1"):
        rows.read()


def double(wish: dict) -> dict:
    return wish | {"double": 2 * wish["seed"]}


def test_every_wish_is_worked_on_once(tmp_path: Path) -> None:
    assert list(in_processes(double, WISHES, 1)) == [double(wish) for wish in WISHES]


def test_a_reader_that_has_read_enough_ends_a_command_without_a_word() -> None:
    command = "import sys; from l0bench.result_rows import told; sys.exit(told(lambda: print('row\\n' * 10**6) or 0))"
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=found
    ) as writing:
        assert writing.stdout is not None
        assert writing.stderr is not None
        assert writing.stdout.readline() == "row\n"
        writing.stdout.close()
        assert writing.stderr.read() == ""
    assert writing.returncode == 141
