"""`l0prune pareto`: runs as they are written, drawn against each other."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Call = Callable[..., Any]


@pytest.fixture
def runs(finished, tmp_path: Path) -> list[Path]:
    """A finished run, and one that is larger and worse."""
    paths = [Path(shutil.copytree(finished.folder, tmp_path / name)) for name in ("first", "worse")]
    report = finished.report
    more = {"params_after": report["params_after"] + 1, "distill_loss_final": 2 * report["distill_loss_final"]}
    (paths[1] / "report.json").write_text(json.dumps({**report, **more}))
    return paths


@pytest.mark.usefixtures("rendered")
def test_the_numbers_are_those_of_the_runs(runs: list[Path], finished, tmp_path: Path, l0prune_call: Call) -> None:
    done = l0prune_call("pareto", *runs, "--out", tmp_path / "out", "--json").succeeded()
    found, report = json.loads(done.out), finished.report
    assert [point["dominated_by"] for point in found["points"]] == [None, "first"]
    first = found["points"][0]
    assert (first["x"], first["y"]) == (report["params_after"], report["distill_loss_final"])
    assert found["warnings"] == []
    assert "warning" not in done.err
    with (tmp_path / "out" / "pareto.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["first", "worse"]
    shown = l0prune_call("pareto", *runs, "--out", tmp_path / "shown").succeeded().out
    assert "dominated by" in shown
    assert f"{report['params_after']:,}" in shown


def test_other_data_are_said(runs: list[Path], tmp_path: Path, l0prune_call: Call) -> None:
    settings = (runs[1] / "config.toml").read_text()
    (runs[1] / "config.toml").write_text(settings.replace("data = [", 'data = ["/elsewhere",', 1))
    done = l0prune_call("pareto", *runs, "--out", tmp_path / "out").succeeded()
    said = " ".join(done.err.split())
    assert "warning: loss may not compare: speech.data differs" in said
    assert (tmp_path / "out" / "pareto.svg").is_file()


def test_bad_input(runs: list[Path], tmp_path: Path, l0prune_call: Call) -> None:
    assert l0prune_call("pareto", "--out", tmp_path / "out").code == 2
    assert l0prune_call("pareto", *runs).code == 2
    l0prune_call("pareto", tmp_path / "no", "--out", tmp_path / "out").refused("no such folder")
    l0prune_call("pareto", *runs, "--out", tmp_path / "out", "--x", "mac").refused(
        "no such number", "did you mean 'macs'"
    )
    l0prune_call("pareto", *runs, "--out", runs[0]).refused("already there")
    (tmp_path / "file").write_text("")
    l0prune_call("pareto", *runs, "--out", tmp_path / "file" / "out").refused("cannot write")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "first", "worse"]
