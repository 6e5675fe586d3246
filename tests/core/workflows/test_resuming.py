"""A run that was stopped goes on to the same bits, with the same data; what it saves names no file of ours."""

import json
import pickle
import pickletools
import re
import signal
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from perceptron_task import SETTINGS, Watch, batches, make_task

import l0prune


@pytest.fixture(scope="module", params=["lagrangian", "projected"])
def whole(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path, l0prune.CompressionReport]:
    """Settings with a kind of controller, and the folder and report of an uninterrupted run."""
    settings = SETTINGS | {"controller": {**SETTINGS["controller"], "kind": request.param}}
    folder = tmp_path_factory.mktemp("whole") / "run"
    return settings, folder, l0prune.compress(make_task(), settings=settings, out=folder)


@pytest.mark.parametrize("stop_at", [("joint", 1), ("joint", 17), ("joint", 30), ("further", 1), ("further", 8)])
def test_resumed_equals_uninterrupted(stop_at: tuple[str, int], whole: Any, tmp_path: Path) -> None:
    settings, finished, first = whole
    parts = tmp_path / "parts"
    with pytest.raises(l0prune.Interrupted) as caught:
        l0prune.compress(make_task(), settings=settings, out=parts, observer=Watch(stop_at))
    assert caught.value.signal_number == signal.SIGTERM
    second = l0prune.compress(make_task(), settings=settings, out=parts, resume=True)
    assert (parts / "model.safetensors").read_bytes() == (finished / "model.safetensors").read_bytes()
    assert second.losses_final == first.losses_final
    assert second.distill_loss_final == first.distill_loss_final
    rows = [
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (finished, parts)
    ]
    for one, other in zip(*rows, strict=True):
        for key in ("position", "stage", "step", "loss", "gradient_norm", "sparsity", "multipliers", "learning_rate"):
            assert one[key] == other[key]


def test_other_data_do_not_go_on_with_a_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(l0prune.Interrupted):
        l0prune.compress(make_task(data_digest="one"), settings=SETTINGS, out=run, observer=Watch(("joint", 5)))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(l0prune.RunError, match="teacher or data differ from those the run began with"):
        l0prune.compress(make_task(data_digest="other"), settings=SETTINGS, out=run, resume=True)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    l0prune.compress(make_task(data_digest="one"), settings=SETTINGS, out=run, resume=True)


def test_a_batch_that_cannot_be_read_costs_nothing_that_was_done(tmp_path: Path) -> None:
    def damaged(position: int) -> Iterator[Any]:
        for number, batch in enumerate(batches(position), start=position):
            if number == 7:
                raise l0prune.DataError("clip cannot be decoded")
            yield batch

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    l0prune.compress(make_task(), settings=SETTINGS, out=whole)
    with pytest.raises(l0prune.DataError, match="cannot be decoded"):
        l0prune.compress(make_task(batches=damaged), settings=SETTINGS, out=parts)
    watch = Watch()
    l0prune.compress(make_task(), settings=SETTINGS, out=parts, resume=True, observer=watch)
    assert watch.stages[0] == ("joint", 30, 7)
    assert (parts / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


_MODULES = ("l0prune", "l0prune_speech", "l0prune_cli", make_task.__module__)


def _module_paths(content: bytes) -> list[str]:
    """Dotted paths into our packages, or the task's file; pickle writes a module and a name as two strings."""
    names = "|".join(_MODULES).encode()
    return sorted({found.decode() for found in re.findall(rb"(?:" + names + rb")\.[A-Za-z_]\w*", content)})


@pytest.mark.parametrize("compaction", [False, True])
@pytest.mark.parametrize("stop_at", [("joint", 20), ("further", 3)])
def test_what_a_run_saves_knows_no_file_of_ours(stop_at: tuple[str, int], compaction: bool, tmp_path: Path) -> None:
    """So that a run which began before files moved, or names changed, goes on after it."""
    settings = {**SETTINGS, "compaction": {"enabled": compaction}, "keep_checkpoints": 9}
    with pytest.raises(l0prune.Interrupted):
        l0prune.compress(make_task(), settings=settings, out=tmp_path, observer=Watch(stop_at))
    saved = sorted((tmp_path / "checkpoints").glob("*.pt"))
    assert saved
    for path in saved:
        assert torch.serialization.get_unsafe_globals_in_checkpoint(path) == []
        state = torch.load(path, weights_only=True)
        assert {type(value) for value in state.values()} <= {dict, OrderedDict, str, int, float, list, type(None)}
        with zipfile.ZipFile(path) as archive:
            pickled = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
        imported = {
            argument.partition(" ")[0].partition(".")[0]
            for code, argument, _ in pickletools.genops(pickled)
            if code.name in ("GLOBAL", "INST") and isinstance(argument, str)
        }
        assert imported <= {"torch", "collections"}
        assert "STACK_GLOBAL" not in {code.name for code, _, _ in pickletools.genops(pickled)}
    l0prune.compress(make_task(), settings=settings, out=tmp_path, resume=True)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"model.json", "model.safetensors", "report.json", "metrics.jsonl"} <= {path.name for path in files}
    assert {path.name: found for path in files if (found := _module_paths(path.read_bytes()))} == {}


def test_module_paths_are_found() -> None:
    pickled = pickle.dumps(l0prune.GateConfig(), protocol=2)
    assert _module_paths(pickled)
    assert _module_paths(b'{"kind": "l0prune.gates.Gates"}') == ["l0prune.gates"]
    assert _module_paths(b'{"format": "l0prune", "plugin": "speech"}') == []
