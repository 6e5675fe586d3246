"""A folder that cannot hold a run is refused and left as it is; a full disk costs no checkpoint."""

import errno
import os
import re
import subprocess
from pathlib import Path

import pytest
import torch

import l0prune


class TestRunDirectory:
    def test_holds_another_run(self, bench, finished) -> None:
        before = {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*")}
        bench.compress("--out", finished.folder).refused("folder holds another run", "choose another --out")
        assert {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*")} == before

    def test_holds_an_unfinished_run(self, bench, interrupted) -> None:
        bench.compress("--out", interrupted).refused("folder holds another run", "--resume")

    def test_holds_something_else(self, bench, out) -> None:
        out.mkdir()
        (out / "thesis.tex").write_text("do not touch")
        bench.compress("--out", out).refused("folder is not empty", str(out))
        assert [path.name for path in out.iterdir()] == ["thesis.tex"]

    def test_empty_folder_is_fine(self, bench, out, toml) -> None:
        out.mkdir()
        bench.compress("--out", out, config=toml(("steps = 10", "steps = 2"), ("steps = 6", "steps = 0"))).succeeded()

    def test_is_a_file(self, bench, out) -> None:
        out.write_text("a file")
        bench.compress("--out", out).refused("not a folder", str(out))
        assert out.read_text() == "a file"

    @pytest.mark.parametrize("extra", [(), ("--resume",)])
    def test_lies_below_a_file(self, bench, tmp_path, extra) -> None:
        (tmp_path / "file").write_text("a file")
        bench.compress("--out", tmp_path / "file" / "run", *extra).refused(str(tmp_path / "file" / "run"))

    def test_cannot_be_made(self, bench) -> None:
        bench.compress("--out", "/proc/l0prune-run").refused("cannot write: /proc/l0prune-run")

    def test_name_too_long(self, bench, tmp_path) -> None:
        bench.compress("--out", tmp_path / ("x" * 300)).refused("too long")

    def test_disk_full_at_the_beginning(self, bench, out, monkeypatch) -> None:
        monkeypatch.setattr("l0prune.support.files.os.fsync", _no_space)
        bench.compress("--out", out).refused("cannot write", "No space left on device", "free some space")
        assert not out.exists()


class TestDiskFull:
    def test_while_saving(self, bench, out, tmp_path, monkeypatch) -> None:
        """The checkpoint before survives, and the run goes on from it once there is room."""
        import l0prune.storage.checkpoint

        config = tmp_path / "often.toml"
        config.write_text("checkpoint_minutes = 0.0\n" + bench.settings.read_text())
        save = torch.save

        def full(state, path) -> None:
            if state["position"] == 4:
                Path(path).write_bytes(b"half")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            save(state, path)

        with monkeypatch.context() as patch:
            patch.setattr(l0prune.storage.checkpoint.torch, "save", full)
            outcome = bench.compress("--out", out, config=config)
        assert outcome.code == 2
        assert outcome.err.startswith("l0prune: error: cannot write")
        assert "No space left on device" in outcome.err
        assert outcome.err.count("\n") == 1
        assert sorted(path.name for path in (out / "checkpoints").iterdir()) == [
            "step-00000002.pt",
            "step-00000003.pt",
        ]
        bench.compress("--out", out, "--resume", config=config).succeeded()

    def test_really(self, bench, tmp_path) -> None:
        """On a file system of a megabyte, which two checkpoints fill."""
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
        try:
            mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
        except OSError:
            mounted = False
        if not mounted:
            pytest.skip("mounting takes more rights")
        try:
            config = tmp_path / "often.toml"
            config.write_text("checkpoint_minutes = 0.0\n" + bench.settings.read_text())
            outcome = bench.compress("--out", disk / "run", config=config)
            left = sorted(path.name for path in (disk / "run" / "checkpoints").iterdir())
        finally:
            # Lazily: torch may still hold the file that it could not finish.
            subprocess.run(["umount", "-l", str(disk)], check=True)
        assert outcome.code == 2
        assert outcome.err.startswith(f"l0prune: error: cannot write: {disk}/run/checkpoints/step-")
        assert outcome.err.count("\n") == 1
        assert left
        assert all(re.fullmatch(r"step-\d+\.pt", name) for name in left)

    def test_safetensors_own_error(self, tmp_path) -> None:
        """Its error for a full disk is neither OSError nor RuntimeError."""
        from safetensors import SafetensorError

        from l0prune.support.files import write_atomic

        def full(path: Path) -> None:
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

        with pytest.raises(l0prune.RunError, match="cannot write"):
            write_atomic(tmp_path / "model.safetensors", full)
        assert list(tmp_path.iterdir()) == []


def _no_space(_descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
