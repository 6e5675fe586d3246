"""Files that are to be written: places where none can be are known beforehand, and looking leaves no trace."""

from pathlib import Path

import pytest

from l0prune import RunError
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
