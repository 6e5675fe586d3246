"""The rules for beginning and continuing a run."""

import json
import math
import multiprocessing
import os
import shutil
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from l0prune.errors import RunError
from l0prune.storage.checkpoint import save_checkpoint
from l0prune.storage.run_directory import RunDirectory, claim_free
from l0prune.support import Busy

SETTINGS = {"plugin": "toy", "seed": 3, "joint": {"steps": 5}, "toy": {"data": ["a", "b"], "width": 2.0}}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "deep" / "run")
    directory.begin(SETTINGS)
    return directory


def test_begins_with_settings_and_nothing_to_go_on_from(run: RunDirectory) -> None:
    assert run.resume(SETTINGS) == (None, [])


def test_newest_checkpoint_wins(run: RunDirectory) -> None:
    for position in (3, 12):
        save_checkpoint(run.checkpoints, position, {"position": position, "origin": dict(run.origin)})
    state, _ = run.resume(SETTINGS)
    assert state is not None
    assert state["position"] == 12


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({**SETTINGS, "seed": 4}, "seed"),
        ({**SETTINGS, "joint": {"steps": 6}}, "joint.steps"),
        ({**SETTINGS, "toy": {"data": ["a"], "width": 2.0}}, "toy.data"),
        ({**SETTINGS, "toy": {"data": ["a", "b"]}}, "toy.width"),
        ({**SETTINGS, "toy": {**SETTINGS["toy"], "depth": 1}}, "toy.depth"),
    ],
)
def test_other_settings_are_named(run: RunDirectory, changed: dict, key: str) -> None:
    with pytest.raises(RunError, match=f"settings differ .*: {key} "):
        run.resume(changed)


def test_a_run_of_before_a_setting_goes_on_with_what_was_done_then(run: RunDirectory) -> None:
    later = {"toy.depth": 1, "toy.layers": []}
    for changed in ({"depth": 1}, {"depth": 1, "layers": ()}, {}):
        assert run.resume({**SETTINGS, "toy": {**SETTINGS["toy"], **changed}}, later=later) == (None, [])
    for changed, key in (({"depth": 2}, "toy.depth"), ({"layers": (1,)}, "toy.layers"), ({"width": 3.0}, "toy.width")):
        with pytest.raises(RunError, match=f"settings differ .*: {key} "):
            run.resume({**SETTINGS, "toy": {**SETTINGS["toy"], **changed}}, later=later)


def test_settings_that_json_lacks_compare_equal(tmp_path: Path) -> None:
    settings = {"bound": math.inf, "text": 'é😀 "quoted" \\ \x7f', "absent": None}
    run = RunDirectory(tmp_path / "run")
    run.begin(settings)
    assert run.resume(settings) == (None, [])


def test_begin_refuses_a_taken_folder(run: RunDirectory) -> None:
    with pytest.raises(RunError, match="go on with --resume"):
        RunDirectory(run.path).begin(SETTINGS)
    run.report.write_text("{}")
    with pytest.raises(RunError, match=r"folder holds another run: .*; choose another --out$"):
        RunDirectory(run.path).begin(SETTINGS)


def test_complete_run_is_not_resumed(run: RunDirectory) -> None:
    run.report.write_text("{}")
    with pytest.raises(RunError, match="the run is complete"):
        run.resume(SETTINGS)


def test_failure_to_begin_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("l0prune.support.files.os.fsync", full)
    (tmp_path / "mine").mkdir()
    for name in ("run", "mine"):
        with pytest.raises(RunError, match="No space left"):
            RunDirectory(tmp_path / name).begin(SETTINGS)
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


class TestMetrics:
    def test_rewind_drops_later_and_torn_lines(self, run: RunDirectory) -> None:
        for position in range(1, 6):
            run.append_metrics({"position": position})
        with run.metrics.open("a") as file:
            file.write('{"position": 2, "lo')
        run.rewind_metrics(3)
        assert [json.loads(line)["position"] for line in run.metrics.read_text().splitlines()] == [1, 2, 3]
        run.rewind_metrics(0)
        assert run.metrics.read_text() == ""

    def test_rewind_drops_damaged_lines(self, run: RunDirectory) -> None:
        whole = [b'{"position": 1}\n', b'{"position": 2}\n']
        damaged = [b'{"posi\n', b"\xff\n", b"[]\n", b'{"position": "2"}\n']
        run.metrics.write_bytes(b"".join([whole[0], *damaged, whole[1], b"{"]))
        run.rewind_metrics(7)
        assert run.metrics.read_bytes() == b"".join(whole)

    def test_rewind_without_metrics(self, run: RunDirectory) -> None:
        run.rewind_metrics(3)
        assert not run.metrics.exists()

    def test_every_line_is_json(self, run: RunDirectory) -> None:
        run.append_metrics(
            {"position": 1, "loss": math.nan, "parts": {"a": math.inf, "b": 1.5}, "pair": (1.0, -math.inf)}
        )

        def refuse(constant: str) -> None:
            raise AssertionError(constant)

        row = json.loads(run.metrics.read_text(), parse_constant=refuse)
        assert row == {"position": 1, "loss": None, "parts": {"a": None, "b": 1.5}, "pair": [1.0, None]}

    def test_full_disk(self, run: RunDirectory) -> None:
        run.metrics.mkdir()
        with pytest.raises(RunError, match=r"cannot write: .*metrics\.jsonl"):
            run.append_metrics({"position": 1})


def test_sweep_deletes_what_was_half_written(run: RunDirectory) -> None:
    half = [run.path / ".model.7.partial.safetensors", run.checkpoints / ".step-00000003.7.partial.pt"]
    for path in half:
        path.write_bytes(b"half")
    folder = run.path / ".export.7.partial"
    (folder / "deep").mkdir(parents=True)
    kept = save_checkpoint(run.checkpoints, 2, {})
    run.sweep()
    assert not folder.exists()
    assert not any(path.exists() for path in half)
    assert kept.exists()
    assert run.settings.exists()


def test_first_free_name(tmp_path: Path) -> None:
    for expected in ("run", "run-2", "run-3"):
        with ExitStack() as claims:
            folder = claim_free(tmp_path / "run", claims)
            assert folder.path.name == expected
            folder.begin(SETTINGS)


class TestHeld:
    def test_by_one_alone(self, tmp_path: Path) -> None:
        run = RunDirectory(tmp_path / "deep" / "run")
        with ExitStack() as claims:
            claims.enter_context(run.held())
            said = rf"another process writes here: .*run \(got this process, {os.getpid()}\)"
            with pytest.raises(Busy, match=said), RunDirectory(run.path).held():
                pass
            assert claim_free(run.path, claims).path.name == "run-2"
        assert list(tmp_path.iterdir()) == []

    def test_by_another_process_until_it_is_killed(self, run: RunDirectory) -> None:
        told, tell = multiprocessing.Pipe(duplex=False)
        child = multiprocessing.get_context("fork").Process(target=_hold, args=(run, tell))
        child.start()
        assert told.recv() == "held"
        with pytest.raises(Busy, match=rf"got process {child.pid} on .*, since 20.* UTC\)"), run.held():
            pass
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert run.lock.exists()
        with run.held():
            assert f"process {os.getpid()} on" in run.lock.read_text()
        assert not run.lock.exists()

    def test_a_link_in_the_place_of_the_lock_is_not_followed(self, run: RunDirectory, tmp_path: Path) -> None:
        other = tmp_path / "other"
        other.write_text("mine")
        run.lock.symlink_to(other)
        with pytest.raises(RunError, match="cannot write"), run.held():
            pass
        assert other.read_text() == "mine"

    def test_what_failed_before_it_began_leaves_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(KeyError), RunDirectory(tmp_path / "run").held():
            raise KeyError
        assert list(tmp_path.iterdir()) == []
        (tmp_path / "mine").mkdir()
        with RunDirectory(tmp_path / "mine").held():
            RunDirectory(tmp_path / "mine").check_free()
        assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


def _hold(run: RunDirectory, tell) -> None:
    with run.held():
        tell.send("held")
        signal.pause()


class TestOrigin:
    """A checkpoint belongs to one run and one step, whatever it is called."""

    @pytest.fixture
    def saved(self, run: RunDirectory) -> Path:
        return save_checkpoint(run.checkpoints, 3, {"position": 3, "origin": dict(run.origin)})

    def test_of_this_run(self, run: RunDirectory, saved: Path) -> None:
        state, _ = RunDirectory(run.path).resume(SETTINGS)
        assert state is not None
        assert state["position"] == 3

    def test_of_another_run_with_the_same_settings(self, saved: Path, tmp_path: Path) -> None:
        other = RunDirectory(tmp_path / "other")
        other.begin(SETTINGS)
        shutil.copy(saved, other.checkpoints)
        with pytest.raises(RunError, match=r"checkpoint of another run: .*step-00000003\.pt"):
            other.resume(SETTINGS)

    def test_without_a_mark_in_a_run_with_a_name(self, run: RunDirectory) -> None:
        save_checkpoint(run.checkpoints, 3, {"position": 3})
        with pytest.raises(RunError, match="checkpoint of another run"):
            run.resume(SETTINGS)

    def test_of_earlier_versions(self, run: RunDirectory) -> None:
        """They named no runs and marked no checkpoints; what such a run saves from now on holds its settings."""
        run.identity.unlink()
        save_checkpoint(run.checkpoints, 3, {"position": 3})
        assert run.resume(SETTINGS)[0] is not None
        marked = save_checkpoint(run.checkpoints, 4, {"position": 4, "origin": dict(run.origin)})
        assert run.resume(SETTINGS)[0] is not None
        state = {"position": 5, "origin": {**run.origin, "run": "of a run with a name"}}
        marked = save_checkpoint(run.checkpoints, 5, state)
        with pytest.raises(RunError, match=f"checkpoint of another run: {marked}"):
            run.resume(SETTINGS)

    def test_settings_changed_by_hand(self, run: RunDirectory, saved: Path) -> None:
        run.settings.write_text(run.settings.read_text().replace("seed = 3", "seed = 4"))
        with pytest.raises(RunError, match="settings of the run have changed since its checkpoint"):
            run.resume({**SETTINGS, "seed": 4})

    def test_settings_that_may_change(self, tmp_path: Path) -> None:
        run = RunDirectory(tmp_path / "run")
        run.begin({**SETTINGS, "workers": 3}, {"workers"})
        save_checkpoint(run.checkpoints, 3, {"position": 3, "origin": dict(run.origin)})
        run.settings.write_text(run.settings.read_text().replace("workers = 3", "workers = 0"))
        assert run.resume({**SETTINGS, "workers": 1}, {"workers"})[0] is not None

    @pytest.mark.parametrize("position", [4, "3", 10**20])
    def test_of_another_step(self, position: object, run: RunDirectory) -> None:
        save_checkpoint(run.checkpoints, 3, {"position": position, "origin": dict(run.origin)})
        with pytest.raises(RunError, match=f"checkpoint of another step: .* \\(got step {position}\\)"):
            run.resume(SETTINGS)


@pytest.mark.parametrize("name", ["metrics.jsonl", "checkpoints", "latency.json"])
def test_a_link_out_of_the_folder_is_not_written_through(name: str, run: RunDirectory, tmp_path: Path) -> None:
    run.checkpoints.rmdir()
    (run.path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match=f"a link leads out of the folder: .*{name}"):
        run.resume(SETTINGS)


def test_what_the_student_does_not_depend_on_may_differ(run: RunDirectory) -> None:
    changed = {**SETTINGS, "keep_checkpoints": 9, "toy": {**SETTINGS["toy"], "workers": 3}}
    assert run.resume(changed, {"keep_checkpoints", "toy.workers"}) == (None, [])
    # A name alone says nothing: the plugin does.
    with pytest.raises(RunError, match=r"settings differ .*: toy\.workers \(got 3"):
        run.resume(changed, {"keep_checkpoints", "workers", "speech.workers"})
