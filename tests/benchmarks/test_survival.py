"""Faults at some of the file-system calls of a short run; `benchmarks/survival.py` puts them at all."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from l0bench.survival.file_calls import FileCalls
from l0bench.survival.scenarios import Materials, Scenario
from l0bench.survival.sweep import FAULTS, Sweep
from l0bench.survival.whole import broken

import l0prune
from l0prune.support import write_text


@pytest.fixture(scope="module", autouse=True)
def _clock() -> Iterator[None]:
    """Networks of the short runs stop the clock of the process that makes them: here, too."""
    kept = time.perf_counter, time.sleep
    yield
    time.perf_counter, time.sleep = kept


@pytest.fixture(scope="module")
def materials(tmp_path_factory: pytest.TempPathFactory) -> Materials:
    return Materials(tmp_path_factory.mktemp("materials"))


@pytest.mark.parametrize(("name", "every"), [("run", 50), ("resumed", 60), ("report of a live run", 48), ("export", 9)])
def test_it_goes_on_to_the_same_bits_after_a_fault_at_any_call(
    materials: Materials, tmp_path: Path, name: str, every: int
) -> None:
    sweep, scenario = Sweep(tmp_path), materials.scenarios()[name]
    calls, end = sweep.undisturbed(scenario)
    if name in ("run", "resumed"):
        assert end["report, compactions"]
    for number, fault in enumerate(FAULTS):
        outcome = sweep.swept(scenario, fault, calls, end, range(number, len(calls), every))
        assert outcome.wrong == []
        assert outcome.tried
        assert outcome.ended >= outcome.tried - 1


def test_a_live_run_can_be_read_at_any_call(materials: Materials, tmp_path: Path) -> None:
    sweep, scenario = Sweep(tmp_path), materials.scenarios()["live run, read"]
    calls, end = sweep.undisturbed(scenario)
    outcome = sweep.swept(scenario, "look", calls, end, range(20, len(calls), 70))
    assert (outcome.wrong, outcome.tried) == ([], 3)


@pytest.mark.usefixtures("rendered")
def test_a_forked_process_makes_the_calls_of_one_that_was_started(materials: Materials, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path)
    scenario = materials.scenarios()["resumed"]
    calls, _end = sweep.undisturbed(scenario)
    assert sweep.fresh_calls(scenario, "resumed", materials.folder) == calls


def test_the_sweep_finds_what_is_wrong(tmp_path: Path) -> None:
    """A file written in its place is half a file after a fault, and is told."""

    def act(folder: Path) -> None:
        (folder / "a.json").write_text('{"long": "enough to be cut"}')

    scenario = Scenario(act=act, go_on=lambda _: None, end=lambda folder: {"text": (folder / "a.json").read_text()})
    sweep = Sweep(tmp_path)
    calls, end = sweep.undisturbed(scenario)
    assert calls == ["open a.json", "write a.json"]
    for fault, ending in (("kill", "JSONDecodeError"), ("full", "it ended with 1")):
        outcome = sweep.swept(scenario, fault, calls, end, [1])
        said = " ".join(outcome.wrong)
        assert ending in said
        assert f"{fault} at call 1, write a.json" in said
        assert "another end: text" in said


def _counted(folder: Path, tell: int) -> None:
    calls = FileCalls(folder)
    calls.install()
    write_text(folder / "folder" / "a.txt", "text")
    (folder.parent / "elsewhere").write_text("not counted")
    os.write(tell, "\n".join(calls.made).replace(f".{os.getpid()}", "").encode())


def test_every_call_of_an_atomic_write_is_counted(tmp_path: Path) -> None:
    told, tell = os.pipe()
    (tmp_path / "root").mkdir()
    child = os.fork()
    if child == 0:
        try:
            _counted(tmp_path / "root", tell)
        finally:
            os._exit(0)
    os.close(tell)
    os.waitpid(child, 0)
    with os.fdopen(told) as file:
        made = file.read().splitlines()
    assert [call for call in made if "fsync" not in call and "remove" not in call] == [
        *("mkdir folder", "open folder/.a.partial.txt", "write folder/.a.partial.txt", "rename folder/.a.partial.txt")
    ]
    assert made.count("fsync folder/.a.partial.txt") == made.count("fsync folder") == 1


def test_what_is_not_whole_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.html").write_text("<html>")
    (tmp_path / ".c.1.partial.json").touch()
    (tmp_path / "run.lock").touch()
    (tmp_path / "d.toml").write_text("a = 1")
    assert [line.partition(":")[0] for line in broken(tmp_path)] == [
        ".c.1.partial.json",
        "a.json",
        "b.html",
        "run.lock",
    ]
    assert len(broken(tmp_path, ("partial", "lock"))) == 2


def test_a_beginning_that_was_killed_is_no_run(tmp_path: Path) -> None:
    """A folder with what is left of it is free; one with anything else is not."""
    from l0prune.storage import RunDirectory

    run = RunDirectory(tmp_path)
    run.identity.touch()
    run.checkpoints.mkdir()
    (tmp_path / ".config.7.partial.toml").touch()
    run.check_free()
    run.begin({"seed": 3})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "config.toml", "run.json"]
    (tmp_path / "other").mkdir()
    other = RunDirectory(tmp_path / "other")
    other.checkpoints.mkdir()
    (other.checkpoints / "step-00000001.pt").touch()
    with pytest.raises(l0prune.RunError, match="folder is not empty"):
        other.check_free()


def test_a_disk_that_fails_after_the_settings_got_their_name_leaves_no_run_without_an_identity(
    materials: Materials, tmp_path: Path
) -> None:
    sweep, scenario = Sweep(tmp_path), materials.scenarios()["run"]
    calls, end = sweep.undisturbed(scenario)
    at = calls.index("rename run/.config.partial.toml") + 1
    assert calls[at] == "fsync run"
    assert sweep.swept(scenario, "full", calls, end, [at]).wrong == []
