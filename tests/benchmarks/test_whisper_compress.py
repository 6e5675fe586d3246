"""benchmarks/whisper_compress.py: runs what is missing, asks compress for the right share, makes a table."""

from pathlib import Path
from typing import Any

import pytest
from commands import command as script
from l0bench.recognition import compressed
from l0bench.recognition.compressed import DENSE, Wished, settings_of

import l0prune
from l0prune import Interrupted, TargetError

whisper_compress = script("whisper_compress")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Wished]:
    """Runs that were asked for; none is made."""
    wishes: list[Wished] = []

    def run(wished: Wished, material: Path) -> dict[str, Any]:
        wishes.append(wished)
        errors = wished.size / 1000 + wished.seed / 100
        figures = {"errors_capped": errors, "errors_capped_interval": [0.0, 0.2], "errors_plain": 0.3}
        figures |= {"parameters": 37_000_000, "loss_after_cut": 1.0, "seconds": 60.0, "seconds_in_all": 90.0}
        return wished.row() | figures

    monkeypatch.setattr(compressed, "run", run)
    return wishes


def command(out: Path, *arguments: str) -> int:
    return whisper_compress.main(["run", "--out", str(out), "--sizes", "50", *arguments])


def test_rows_that_are_there_are_not_run_again_and_make_a_table(tmp_path: Path, ran: list[Wished]) -> None:
    out = tmp_path / "rows.jsonl"
    assert command(out, "--parts", "encoder") == 0
    assert command(out, "--parts", "encoder", "whole", "--seeds", "0", "1") == 0
    asked = [(wished.label, wished.part, wished.seed) for wished in ran]
    cells = [("encoder", 0), ("whole", 0), ("encoder", 1), ("whole", 1)]
    assert asked == [("dense", "whole", 0), *(("recipe", *cell) for cell in cells)]
    assert whisper_compress.main(["table", "--out", str(out)]) == 0
    lines = out.with_suffix(".md").read_text(encoding="utf-8").splitlines()
    assert lines[-2].startswith(
        "| encoder | 50 | recipe | task | 300 | 2 | 5.5 ± 0.7 | 0.0 to 20.0 | 30 | 37.0 | 1.00 | 1.0"
    )
    assert lines[-3].startswith("|  |  | dense |  |  | 1 | 0.0 |")


def test_settings_go_with_a_name(tmp_path: Path, ran: list[Wished], capsys: pytest.CaptureFixture[str]) -> None:
    assert command(tmp_path / "rows.jsonl", "--label", "other") == 2
    assert command(tmp_path / "rows.jsonl", "--set", "controller.kind=pi") == 2
    assert capsys.readouterr().err.count("settings and their name go together") == 2
    assert command(tmp_path / "rows.jsonl", "--set", "controller.kind=pi", "--label", "pi", "--parts", "whole") == 0
    assert ran[-1].settings == {"controller.kind": "pi"}


@pytest.mark.parametrize(("part", "share"), [("encoder", 0.5 * 8 / 40), ("whole", 0.5 * 20 / 40)])
def test_the_share_is_of_the_part(monkeypatch: pytest.MonkeyPatch, part: str, share: float) -> None:
    monkeypatch.setattr(compressed, "counted", lambda teacher: {"encoder": 8, "whole": 20, "all": 40})
    more = {"controller.kind": "pi", "log_every": 7}
    wished = Wished(label="x", part=part, size=50, steps=30, objective="layers", seed=3, settings=more)
    given = settings_of(wished, Path("teacher"), {"train": Path("train.tsv")})
    assert given["target_sparsity"] == pytest.approx(share)
    assert given["speech"]["frozen"] == given["speech"]["ignored"] == (["model.decoder"] if part == "encoder" else [])
    run = l0prune.resolve(l0prune.get_plugin("speech"), given, recipe="whisper")
    assert (run.controller.kind, run.log_every, run.metric, run.seed) == ("pi", 7, "params", 3)
    assert run.joint.steps + run.further.steps == 30
    assert run.options["task_weight"] == 0.0


def test_what_failed_is_a_row_and_what_was_interrupted_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compressed, "whisper_tiny", lambda material: material)
    monkeypatch.setattr(compressed, "clips", lambda material: {})

    def fail(*_: object) -> Any:
        raise TargetError("too much")

    def interrupt(*_: object) -> Any:
        raise Interrupted(15, where="joint step 3", hint="go on")

    monkeypatch.setattr(compressed, "_dense", fail)
    assert compressed.run(DENSE, tmp_path)["failed"] == "too much"
    monkeypatch.setattr(compressed, "_dense", interrupt)
    with pytest.raises(Interrupted):
        compressed.run(DENSE, tmp_path)
