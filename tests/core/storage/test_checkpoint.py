"""The state of a run on disk."""

import errno
import os
import stat
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import l0prune.support.files
from l0prune.errors import DamagedCheckpoint, RunError
from l0prune.storage.checkpoint import checkpoints, load_checkpoint, newest_checkpoint, save_checkpoint
from l0prune.support.files import write_atomic, write_text
from l0prune.support.torch_internals import random_state, restore_random_state


def test_round_trip(tmp_path: Path) -> None:
    state = {"weights": {"a": torch.randn(3, 2)}, "numbers": [1, 2.5, None, True], "text": "é", "pair": (1, 2)}
    path = save_checkpoint(tmp_path, 7, state)
    loaded = load_checkpoint(path)
    assert torch.equal(loaded["weights"].pop("a"), state["weights"].pop("a"))
    assert loaded == {"version": 2, **state}


def test_two_newest_are_kept(tmp_path: Path) -> None:
    for position in (9, 10, 100, 1000):
        save_checkpoint(tmp_path, position, {})
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000100.pt", "step-00001000.pt"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), flipped=st.integers(1, 255))
def test_a_changed_byte_is_found(where: float, flipped: int, tmp_path: Path) -> None:
    state = {"weights": torch.arange(40.0).view(5, 8), "numbers": [1, 2.5, None, True], "text": "é"}
    path = save_checkpoint(tmp_path, 1, state)
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= flipped
    path.write_bytes(content)
    with pytest.raises(DamagedCheckpoint):
        load_checkpoint(path)


@pytest.mark.parametrize("length", [0, 1, 500, -1])
def test_a_damaged_newest_one_gives_way_to_the_one_before(length: int, tmp_path: Path) -> None:
    for position in (3, 8):
        save_checkpoint(tmp_path, position, {"position": position})
    newest = checkpoints(tmp_path)[-1]
    newest.write_bytes(newest.read_bytes()[:length])
    state, notes = newest_checkpoint(tmp_path)
    assert state is not None
    assert state["position"] == 3
    assert len(notes) == 1
    assert str(newest) in notes[0]
    oldest = checkpoints(tmp_path)[0]
    oldest.write_bytes(b"")
    with pytest.raises(DamagedCheckpoint, match="step-00000008"):
        newest_checkpoint(tmp_path)


def test_another_version_is_not_passed_over(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 3, {})
    save_checkpoint(tmp_path, 8, {"version": 1})
    with pytest.raises(RunError, match="another version"):
        newest_checkpoint(tmp_path)


def test_random_state_round_trip() -> None:
    with torch.random.fork_rng():
        state = random_state()
        first = torch.randn(5)
        restore_random_state(state)
        assert torch.equal(torch.randn(5), first)


class TestWriteAtomic:
    def test_failure_leaves_the_old_file_and_nothing_else(self, tmp_path: Path) -> None:
        path = tmp_path / "file.txt"
        write_text(path, "old")

        def half(temporary: Path) -> None:
            temporary.write_text("ne")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with pytest.raises(RunError, match="No space left on device"):
            write_atomic(path, half)
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_failure_to_synchronise(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(_descriptor: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(l0prune.support.files.os, "fsync", full)
        with pytest.raises(RunError, match="Input/output error"):
            write_text(tmp_path / "file.txt", "new")
        assert list(tmp_path.iterdir()) == []

    def test_bugs_keep_their_traceback(self, tmp_path: Path) -> None:
        def bug(_temporary: Path) -> None:
            raise RuntimeError("shape mismatch")

        with pytest.raises(RuntimeError, match="shape mismatch"):
            write_atomic(tmp_path / "file.txt", bug)
        assert list(tmp_path.iterdir()) == []

    def test_interrupt_leaves_nothing(self, tmp_path: Path) -> None:
        def interrupted(temporary: Path) -> None:
            temporary.write_text("ne")
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            write_atomic(tmp_path / "file.txt", interrupted)
        assert list(tmp_path.iterdir()) == []

    def test_below_a_file(self, tmp_path: Path) -> None:
        write_text(tmp_path / "file", "")
        with pytest.raises(RunError, match="cannot write"):
            write_text(tmp_path / "file" / "below", "")

    def test_permissions_follow_the_mask(self, tmp_path: Path) -> None:
        before = os.umask(0o027)
        try:
            write_atomic(tmp_path / "file", lambda temporary: os.close(os.open(temporary, os.O_CREAT, 0o600)))
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
