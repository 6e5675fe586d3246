"""`l0prune evaluate`: runs, teachers and yardsticks on labelled sound."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("quick_probes")


@pytest.mark.usefixtures("rendered")
def test_a_run_beside_its_teacher_and_the_yardsticks(
    finished, bench, labelled_sound: Path, tmp_path: Path, l0prune_call: Call
) -> None:
    plot = tmp_path / "plots" / "probes.png"
    random = f"random:{finished.folder}"
    flags = ("--data", labelled_sound, "--tasks", "keyword,verification", "--seeds", "2", "--device", "cpu")
    models, out = (finished.folder, "filterbanks", random), tmp_path / "probes.json"
    done = l0prune_call("evaluate", *models, *flags, "--plot", plot, "--out", out, "--json")
    found = json.loads(done.succeeded().out)
    assert json.loads(out.read_text()) == found
    report = finished.report
    teacher, run = str(bench.teacher), str(finished.folder)
    assert found["against"] == teacher
    assert list(found["models"]) == [teacher, run, "filterbanks", random]
    assert found["models"][teacher]["parameters"] == report["params_before"]
    assert found["models"][run]["parameters"] == report["params_after"]
    assert found["models"][random]["parameters"] == report["params_after"]
    assert list(found["tasks"]) == ["keyword", "verification"]
    assert found["tasks"]["keyword"]["data"] == str(labelled_sound)
    assert len(found["scores"]) == 4 * 2
    for score in found["scores"]:
        one, other = score["values"]
        assert score["mean"] == pytest.approx((one + other) / 2)
        assert score["deviation"] == pytest.approx(abs(one - other) / 2**0.5)
    # The filterbanks have no layers.
    assert [(layer["model"], layer["layer"]) for layer in found["layers"]] == [
        (model, layer) for model in (run, random) for layer in range(3)
    ]
    assert all(set(layer["measures"]) == {"cka", "cosine", "l1"} for layer in found["layers"])
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in plot.parent.iterdir()] == [plot.name]
    assert "2 probes" in done.err


def test_a_table_of_speakers_serves_the_tasks_of_speakers(
    labelled_sound: Path, tmp_path: Path, l0prune_call: Call
) -> None:
    clips = json.loads((labelled_sound / "manifest.json").read_text())["clips"]
    lines = [f"{labelled_sound / clip['file']},{clip['speaker']}" for clip in clips if "keyword" not in clip]
    table = tmp_path / "speakers.csv"
    table.write_text("\n".join(["path,speaker", *lines, "lost.wav,s0"]))
    done = l0prune_call("evaluate", "filterbanks", "--data", table, "--seeds", "1", "--json").succeeded()
    found = json.loads(done.out)
    assert list(found["tasks"]) == ["speaker", "verification"]
    (note,) = found["tasks"]["speaker"]["notes"]
    assert "1 rows without audio left out: lost.wav" in note
    assert note in done.err


def test_tables_for_people(labelled_sound: Path, l0prune_call: Call) -> None:
    flags = ("--data", labelled_sound, "--tasks", "keyword", "--seeds", "1", "--shuffle-labels")
    done = l0prune_call("evaluate", "filterbanks", *flags).succeeded()
    assert "keyword, accuracy" in done.out
    assert "SHUFFLED" in done.out
    # A single seed tells nothing of how much seeds differ.
    assert "1 seed;" in done.out
    assert "±" not in done.out
    assert "chance" in done.out
    assert "\x1b" not in done.out


def test_wrong_requests_are_refused(
    labelled_sound: Path, bench, changed_set: Callable[..., Path], tmp_path: Path, l0prune_call: Call
) -> None:
    def refused(*arguments: object, words: str) -> None:
        l0prune_call("evaluate", *arguments).refused(words)

    data = ("--data", labelled_sound)
    refused("filterbanks", "--tasks", "keywords", words="no such task: keywords; did you mean 'keyword'?")
    refused("filterbanks", "--tasks", "zebra", words="choose one of asr, classify, frames, keyword, phone")
    refused("embeded", *data, words="did you mean 'embedded'?")
    refused("random:embeded", *data, words="did you mean 'embedded'?")
    refused("filterbanks", "--data", bench.clips, words="not a labelled set")
    refused("filterbanks", "--data", tmp_path / "nothing", words="no such folder")
    refused("e" * 300, *data, words="no such teacher")
    refused("filterbanks", "--data", "d" * 300, words="no such folder")
    for minutes in ("0", "inf", "nan"):
        refused("filterbanks", *data, "--max-minutes", minutes, words="max_minutes out of range")
    refused("filterbanks", *data, "--max-minutes", "0.01", words="max_minutes is too small for the task: keyword")
    refused("filterbanks", *data, "--device", "abacus", words="device cannot be used")
    refused("filterbanks", *data, "--plugin", "speach", words="no such plugin: speach; did you mean 'speech'?")

    def changed(change: Callable[[list[dict[str, Any]]], object], words: str) -> None:
        folder = changed_set(change)
        refused("filterbanks", "--data", folder, words=words)
        shutil.rmtree(folder)

    def train_alone(clips: list[dict[str, Any]]) -> None:
        for clip in clips:
            clip.update(split="train")

    changed(lambda clips: clips[0].update(file="lost.wav"), "labels without audio")
    changed(lambda clips: clips[0].update(duration_seconds=3.0), "labels do not match the audio")
    changed(lambda clips: clips[1].update(speaker="s5"), "train and test overlap: speaker")
    changed(train_alone, "the data serve no task")
    (tmp_path / "report.json").write_text("{}")
    refused(tmp_path, *data, words="damaged file: ")
    assert l0prune_call("evaluate").code == 2
    assert l0prune_call("evaluate", "filterbanks", "--seeds", "0").code == 2


def test_results_that_cannot_be_written_cost_no_scoring(
    labelled_sound: Path, tmp_path: Path, l0prune_call: Call
) -> None:
    flags = ("filterbanks", "--data", labelled_sound)
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "file" / "found", tmp_path / ("n" * 300)):
        for flag in ("--out", "--plot"):
            # Nothing else stands on stderr: no clip was heard.
            l0prune_call("evaluate", *flags, flag, place).refused(f"cannot write: {place}")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_plugin_that_evaluates_nothing(monkeypatch: pytest.MonkeyPatch, l0prune_call: Call) -> None:
    import l0prune.workflows.evaluation

    monkeypatch.setattr(l0prune.workflows.evaluation, "get_plugin", lambda _name: object())
    l0prune_call("evaluate", "filterbanks").refused("plugin evaluates nothing: speech")
