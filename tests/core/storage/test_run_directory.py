"""The rules for beginning and continuing a run."""

import json
import math
from pathlib import Path

import pytest

from l0prune.errors import RunError
from l0prune.storage.checkpoint import save_checkpoint
from l0prune.storage.run_directory import RunDirectory, free_run_directory

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
        save_checkpoint(run.checkpoints, position, {"position": position})
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
        path = free_run_directory(tmp_path / "run")
        assert path.name == expected
        path.mkdir()


def test_what_the_student_does_not_depend_on_may_differ(run: RunDirectory) -> None:
    changed = {**SETTINGS, "keep_checkpoints": 9, "toy": {**SETTINGS["toy"], "workers": 3}}
    assert run.resume(changed, {"keep_checkpoints", "toy.workers"}) == (None, [])
    # A name alone says nothing: the plugin does.
    with pytest.raises(RunError, match=r"settings differ .*: toy\.workers \(got 3"):
        run.resume(changed, {"keep_checkpoints", "workers", "speech.workers"})
