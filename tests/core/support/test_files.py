"""Files that are to be written: places where none can be are known beforehand, and looking leaves no trace."""

import subprocess
import sys
from pathlib import Path

import pytest

from l0prune import RunError
from l0prune.support import Busy, assembled, check_inside
from l0prune.support.files import check_writable, write_text


def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    there = tmp_path / "there.json"
    there.write_text("older")
    for path in (there, tmp_path / "new.json", tmp_path / "some" / "new" / "folder" / "new.json"):
        check_writable(path)
        assert [file.name for file in tmp_path.rglob("*")] == ["there.json"]
        assert there.read_text() == "older"
        # As it said.
        write_text(path, "newer")
        for made in sorted(tmp_path.rglob("*"), reverse=True):
            made.unlink() if made.is_file() else made.rmdir()
        there.write_text("older")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "Is a directory"),
        ("folder", "Is a directory"),
        ("file/new.json", "Not a directory|File exists"),
        ("file/deeper/new.json", "Not a directory"),
        ("n" * 300, "File name too long"),
        # The name itself is short enough, but not that of the file that becomes it.
        ("n" * 250, "File name too long"),
        (f"new/{'n' * 300}/new.json", "File name too long"),
    ],
)
def test_a_place_where_no_file_can_be_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("older")
    for attempt in (check_writable, lambda path: write_text(path, "newer")):
        with pytest.raises(RunError, match=f"cannot write: {tmp_path / name} .got ({reason})"):
            attempt(tmp_path / name)
        if attempt is check_writable:
            assert sorted(file.name for file in tmp_path.rglob("*")) == ["file", "folder"]


def test_one_process_assembles_and_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    (tmp_path / ".model.77.partial.onnx").write_text("half")
    (tmp_path / ".folder.77.partial" / "deep").mkdir(parents=True)
    others = [tmp_path / name for name in (".model.b.77.partial.onnx", ".model.77.partial.pt", "model.77.partial.onnx")]
    for other in others:
        other.write_text("of others")
    with assembled(tmp_path / "model.onnx") as place, assembled(tmp_path / "folder") as folder:
        place.write_text("whole")
        folder.mkdir()
        said = r"another process writes here: .*model\.onnx"
        with pytest.raises(Busy, match=said), assembled(tmp_path / "model.onnx"):
            pass
    assert sorted(tmp_path.iterdir()) == sorted([*others, tmp_path / "model.onnx", tmp_path / "folder"])
    with pytest.raises(RunError, match="already there"), assembled(tmp_path / "model.onnx"):
        pass


def test_a_file_written_again_takes_away_what_killed_processes_left_of_it(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-I", "-c", ""])
    ended.wait()
    kept = [".report.1.partial.html", f".other.{ended.pid}.partial.html", f".report.{ended.pid}.partial.json"]
    for name in (*kept, f".report.{ended.pid}.partial.html"):
        (tmp_path / name).write_text("half")
    write_text(tmp_path / "report.html", "whole")
    # Process 1 runs; the others are of other files.
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([*kept, "report.html"])
    assert (tmp_path / "report.html").read_text() == "whole"


def test_a_link_out_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "out").symlink_to(tmp_path)
    (tmp_path / "run" / "in").symlink_to("deep")
    check_inside(tmp_path / "run" / "in" / "file", tmp_path / "run")
    for path in (tmp_path / "run" / "out" / "file", tmp_path / "run" / ".." / "file"):
        with pytest.raises(RunError, match="a link leads out of the folder"):
            check_inside(path, tmp_path / "run")
