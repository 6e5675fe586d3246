"""`l0prune cut`: a size out of an elastic run of the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import call


@pytest.fixture(scope="module")
def elastic(bench: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elastic") / "run"
    bench.compress("--set", "elastic.smallest=0.5", "--set", "target_sparsity=0.5", "--out", folder).succeeded()
    return folder


def test_a_cut_is_a_run_that_other_commands_open(elastic: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    done = call("cut", elastic, "--target", "params=70%,macs=80%", "--out", small, "--json").succeeded()
    report = json.loads(done.out)
    assert report == json.loads((small / "report.json").read_text())
    assert report["params_after"] <= 0.7 * report["params_before"]
    assert report["macs_after"] <= 0.8 * report["macs_before"]
    assert report["cut"]["of"] == str(elastic)
    call("verify", small, "--repeat").succeeded()
    call("report", small, elastic, "--out", tmp_path / "page.html").succeeded()
    call("export", small, "--to", "torchscript", "--out", tmp_path / "small.pt").succeeded()


def test_a_polish_measures_the_loss(elastic: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    call("cut", elastic, "--target", "params=60%", "--out", small, "--polish", 2).succeeded()
    report = json.loads((small / "report.json").read_text())
    assert report["distill_loss_final"] is not None
    assert report["distill_loss_after_removal"] is not None
    assert len((small / "metrics.jsonl").read_text().splitlines()) == 2
    call("verify", small).succeeded()


def test_wrong_input_is_one_line(elastic: Path, finished: Any, tmp_path: Path) -> None:
    out = tmp_path / "small"
    call("cut", elastic, "--target", "params=40%", "--out", out).refused("outside the range", "0.5 to 1 of the size")
    call("cut", elastic, "--target", "40%", "--out", out).refused("not a target", "--target")
    call("cut", finished.folder, "--target", "params=40%", "--out", out).refused(
        "not an elastic run", "--set elastic.smallest=0.25"
    )
    call("cut", tmp_path / "nowhere", "--target", "params=40%", "--out", out).refused("no run here")
    call("cut", elastic, "--target", "params=60%", "--out", elastic).refused("already there")
    call("cut", elastic, "--target", "params=60%", "--out", out, "--polish", -1).refused("polish out of range")
    assert list(tmp_path.iterdir()) == []
