"""Files of torch.save: data is read, anything that acts is refused and does not run."""

import os
import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from l0prune_speech.formats.pickled import Inert, read_pickled
from l0prune_speech.formats.teachers import load_teacher

from l0prune import DataError


class Attack:
    """Runs a function when unpickled without restriction."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.function, self.arguments


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "make", [lambda path: Attack(os.mkdir, str(path)), lambda path: Attack(exec, f"import os; os.mkdir({str(path)!r})")]
)
def test_a_pickle_that_acts_is_refused_and_does_not_run(
    tmp_path: Path, make: Callable[[Path], Attack], zipped: bool
) -> None:
    trace, path = tmp_path / "it ran", tmp_path / "teacher.pt"
    content = {"model": {"weight": torch.zeros(2)}, "cfg": make(trace)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(DataError, match=r"file refused: it holds more than data: .*got (\w+\.mkdir|exec)\)") as caught:
        load_teacher(str(path))
    assert not trace.exists()
    assert "\n" not in str(caught.value)
    # The trap works: without the restriction it would have run.
    torch.load(path, weights_only=False)
    assert trace.exists()


def test_a_bare_pickle_that_acts_does_not_run(tmp_path: Path) -> None:
    trace, path = tmp_path / "it ran", tmp_path / "teacher.pt"
    path.write_bytes(pickle.dumps(Attack(os.mkdir, str(trace)), protocol=2))
    with pytest.raises(DataError):
        load_teacher(str(path))
    assert not trace.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_objects_of_training_frameworks_become_inert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    made: list[object] = []

    class Dictionary:
        """Stands for fairseq's; making one leaves a trace."""

        def __init__(self) -> None:
            made.append(self)
            self.symbols = ["a", "b"]

    Dictionary.__module__, Dictionary.__qualname__ = "fairseq.data.dictionary", "Dictionary"
    module = types.ModuleType("fairseq.data.dictionary")
    module.Dictionary = Dictionary  # type: ignore[attr-defined]
    for name in ("fairseq", "fairseq.data"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "fairseq.data.dictionary", module)
    torch.save(
        {"task_state": {"dictionary": Dictionary()}, "model": {"weight": torch.arange(3)}},
        tmp_path / "teacher.pt",
        _use_new_zipfile_serialization=zipped,
    )
    made.clear()
    content = read_pickled(tmp_path / "teacher.pt")
    assert torch.equal(content["model"]["weight"], torch.arange(3))
    assert isinstance(content["task_state"]["dictionary"], Inert)
    assert content["task_state"]["dictionary"].state == {"symbols": ["a", "b"]}
    assert made == []


@pytest.mark.parametrize("share", [0, 0.2, 0.9, 0.999])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_file_is_one_line(tmp_path: Path, share: float, zipped: bool) -> None:
    path = tmp_path / "teacher.pt"
    torch.save({"model": {"weight": torch.randn(50, 50)}}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match=r"damaged checkpoint|holds more than data") as caught:
        read_pickled(path)
    assert "\n" not in str(caught.value)


def test_what_is_no_checkpoint_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "teacher.pt"
    for content in (b"RIFF....WAVE", b"hello, world\n" * 99, bytes(1000)):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"damaged checkpoint|holds more than data"):
            read_pickled(path)
