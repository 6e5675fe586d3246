"""`progress=True` shows in Python what the command shows; the logger hears notes in any case."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from perceptron_task import SETTINGS as WHOLE
from perceptron_task import make_task
from rich.console import Console
from torch import nn

import l0prune
from l0prune.adapters.terminal import TerminalObserver
from l0prune.workflows import Observer, register_display

SETTINGS = {**WHOLE, "joint": {"steps": 3}, "further": {"steps": 2}}


class Heard(Observer):
    def __init__(self) -> None:
        self.calls: list[str] = []

    def record(self, record: l0prune.Record) -> None:
        self.calls.append(f"{record.stage} {record.step}")

    def finished(self, report: Any) -> None:
        self.calls.append("finished")


def test_compress_shows_its_steps_on_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    heard = Heard()
    l0prune.compress(make_task(), settings=SETTINGS, out=tmp_path / "run", observer=heard, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    for words in ("To prune", "joint stage", "joint 3/3", "further 2/2", "gated against pruned"):
        assert words in err, err
    assert heard.calls == ["joint 1", "joint 2", "joint 3", "further 1", "further 2", "finished"]


def test_without_it_nothing_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "l0prune")
    l0prune.compress(make_task(), settings=SETTINGS, out=tmp_path / "run")
    assert capsys.readouterr() == ("", "")
    assert any("joint stage" in record.message for record in caplog.records)


def test_prune_says_its_steps_and_counts_batches(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "l0prune")
    torch.manual_seed(0)
    model, batches = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)), [torch.randn(8, 4)] * 3
    settings: dict[str, Any] = {"importance": "activation", "batches": batches, "repair": True}
    quiet = l0prune.prune(model, batches[0], target_sparsity=0.5, **settings)
    assert capsys.readouterr().err == ""
    said = [record.message for record in caplog.records]
    assert "1 group proved; units are ranked by activation" in said
    shown = l0prune.prune(model, batches[0], target_sparsity=0.5, **settings, progress=True)
    assert all(line in capsys.readouterr().err for line in said[:1])
    for name, tensor in quiet.state_dict().items():
        assert torch.equal(tensor, shown.state_dict()[name]), name


def test_a_terminal_gets_a_bar_for_what_is_counted() -> None:
    with open("/dev/null", "w") as nowhere, TerminalObserver(Console(file=nowhere, force_terminal=True)) as watcher:
        assert list(watcher.counting("batches", [1, 2, 3])) == [1, 2, 3]
        assert list(watcher.counting("batches", iter([1, 2]))) == [1, 2]


def test_the_display_is_closed_after_an_error(tmp_path: Path, closed: list[bool]) -> None:
    with pytest.raises(l0prune.L0PruneError):
        l0prune.compress(make_task(), settings={"no_such": 1}, out=tmp_path / "run", progress=True)
    assert closed == [True]


@pytest.fixture
def closed() -> Iterator[list[bool]]:
    found: list[bool] = []

    class Display(TerminalObserver):
        def __exit__(self, *error: object) -> None:
            found.append(error[0] is not None)

    register_display(Display, replace=True)
    yield found
    register_display(TerminalObserver, replace=True)
