"""Digests of files, checksums of archives, stamps within files: every change of a byte is noticed."""

import hashlib
import random
import zipfile
from pathlib import Path

import pytest
import torch

from l0prune import RunError
from l0prune.support import (
    STAMP,
    SUMS,
    check_archive,
    check_stamp,
    check_sums,
    file_digest,
    json_digest,
    stamp,
    write_sums,
)


def changed(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@pytest.mark.parametrize("content", [b"", b"a", bytes(range(256)) * 5000])
def test_a_file_has_the_digest_of_its_content(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert file_digest(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_the_order_of_keys_does_not_matter() -> None:
    assert json_digest({"a": 1, "b": [1, 2]}) == json_digest({"b": [1, 2], "a": 1})
    assert json_digest({"a": 1, "b": [1, 2]}) != json_digest({"a": 1, "b": [2, 1]})


def test_what_torch_saved_is_taken_whole_or_not_at_all(tmp_path: Path) -> None:
    path, tensor = tmp_path / "weights.pt", torch.randn(500)
    torch.save({"weights": tensor}, path)
    check_archive(path)
    whole, taken = path.read_bytes(), 0
    start = whole.index(tensor.numpy().tobytes())
    for place in random.sample(range(start, start + 4 * len(tensor)), 20):
        path.write_bytes(changed(whole, place))
        # torch itself sees nothing.
        assert not torch.equal(torch.load(path, weights_only=True)["weights"], tensor)
        with pytest.raises(zipfile.BadZipFile, match=r"the checksum of weights/data/0 is wrong"):
            check_archive(path)
    for place in random.sample(range(len(whole)), 200):
        path.write_bytes(changed(whole, place))
        try:
            check_archive(path)
        except (zipfile.BadZipFile, OSError, RuntimeError, ValueError):
            continue
        taken += 1
        try:
            loaded = torch.load(path, weights_only=True)["weights"]
        except (RuntimeError, LookupError):
            continue
        assert torch.equal(loaded, tensor), place
    assert taken < 200


def test_an_archive_without_checksums_passes(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"weights": torch.randn(5)}, tmp_path / "weights.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    check_archive(tmp_path / "weights.pt")


def test_a_stamp_is_the_digest_of_the_file_around_it(tmp_path: Path) -> None:
    path, mark = tmp_path / "file", f"{STAMP}\x12\x40".encode()
    before, after = b"graph" * 100 + mark, b"the end"
    path.write_bytes(before + b"0" * 64 + after)
    stamp(path)
    digest = hashlib.sha256(before + b"0" * 64 + after).hexdigest()
    assert path.read_bytes() == before + digest.encode() + after
    assert check_stamp(path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(changed(whole, place))
        if len(before) - len(mark) <= place < len(before):
            assert not check_stamp(path)  # The mark itself: there is no stamp any more.
        else:
            with pytest.raises(RunError, match=f"checksum is wrong.*remove its metadata entry {STAMP}"):
                check_stamp(path)
    for none in (b"", b"no stamp"):
        path.write_bytes(none)
        assert not check_stamp(path)
    with pytest.raises(ValueError, match="no place"):
        stamp(path)


def test_a_folder_is_what_was_written_or_says_which_file_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    (folder / "inner").mkdir(parents=True)
    assert check_sums(folder) is None
    for name in ("a.bin", "inner/b b.json"):
        (folder / name).write_bytes(name.encode())
    write_sums(folder)
    assert check_sums(folder) == 2
    # What is put beside it later is no part of it.
    (folder / "README.md").touch()
    assert check_sums(folder) == 2
    (folder / "inner/b b.json").write_bytes(b"{}")
    with pytest.raises(RunError, match=r"not what was written: .*b b.json .got"):
        check_sums(folder)
    (folder / "inner/b b.json").unlink()
    with pytest.raises(RunError, match=r"cannot be read: .*b b.json"):
        check_sums(folder)


@pytest.mark.parametrize(
    "line", ["", "short  a.bin", f"{'0' * 64}  ../x", f"{'0' * 64}  /etc/passwd", f"{'0' * 64} a.bin"]
)
def test_checksums_that_are_damaged_or_lead_elsewhere_are_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / SUMS).write_text(f"{line}\n")
    with pytest.raises(RunError, match=r"damaged checksums: .*SHA256SUMS, line 1"):
        check_sums(tmp_path)


def test_checksums_follow_no_link_out_of_the_folder(tmp_path: Path) -> None:
    folder, outside = tmp_path / "export", tmp_path / "outside"
    folder.mkdir()
    outside.write_text("secret")
    (folder / "a.bin").symlink_to(outside)
    (folder / SUMS).write_text(f"{file_digest(outside)}  a.bin\n")
    with pytest.raises(RunError, match="a link leads out of the folder"):
        check_sums(folder)
