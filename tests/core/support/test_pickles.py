"""Pickles that would break the interpreter are known before one of them is read."""

import zipfile
from pathlib import Path

import pytest
import torch

from l0prune.support import pickled_names

TUPLES = b"\x80\x02" + b")" + b"\x85" * 200_000 + b"."
BY_MEMO = b"\x80\x02)q\x00" + b"h\x00\x85q\x00" * 100_000 + b"."


def archive(path: Path, data: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as made:
        made.writestr("archive/data.pkl", data)
    return path


@pytest.mark.parametrize("data", [TUPLES, BY_MEMO, b"\x80\x02" + b"]" * 300 + b"a" * 299 + b"."])
def test_nested_too_deeply(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "old.pt").write_bytes(data)
    for path in (tmp_path / "old.pt", archive(tmp_path / "new.pt", data)):
        with pytest.raises(ValueError, match="nested too deeply"):
            pickled_names(path)


def test_too_long(tmp_path: Path) -> None:
    path = archive(tmp_path / "new.pt", b"\x80\x02(" + b"K\x01" * 1000 + b"l.")
    assert pickled_names(path, most=1010) == set()
    with pytest.raises(ValueError, match="more than 900 operations"):
        pickled_names(path, most=900)


def test_inflates(tmp_path: Path) -> None:
    path = archive(tmp_path / "new.pt", b"\x80\x02" + b"N0" * 10_000_000 + b"N.", zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    with pytest.raises(ValueError, match="larger than the file"):
        pickled_names(path)


def test_takes_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises((ValueError, LookupError)):
        pickled_names(archive(tmp_path / "new.pt", b"\x80\x02\x85."))


@pytest.mark.parametrize("new", [True, False])
def test_what_torch_writes(new: bool, tmp_path: Path) -> None:
    model = torch.nn.Sequential(*(torch.nn.Linear(3, 3) for _ in range(50)))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    path = tmp_path / "state.pt"
    torch.save([model.state_dict(), optimizer.state_dict()], path, _use_new_zipfile_serialization=new)
    names = pickled_names(path)
    assert "collections.OrderedDict" in names
    assert "torch._utils._rebuild_tensor_v2" in names


def test_a_damaged_name_gives_no_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    assert pickled_names(archive(tmp_path / "damaged", b"cmo\\qule\nname\n.")) == {"mo\\qule.name"}
    assert not recwarn.list
