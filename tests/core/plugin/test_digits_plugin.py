"""A plugin of another distribution, installed and found by its entry point alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command_line import call
from installed import installed
from sklearn.datasets import load_digits
from torch import nn

import l0prune

PROJECT = Path(__file__).parents[1] / "digits_plugin"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the plugin."""
    return installed([PROJECT], tmp_path_factory.mktemp("digits"))


def in_a_process(*arguments: str, path: Path) -> str:
    """What the command says where the plugin is installed."""
    paths = os.pathsep.join(filter(None, (str(path), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "l0prune_cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": paths}
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True).stdout


def test_it_compresses_a_classifier(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    words = ("compress", "--plugin", "digits", "--width", "24", "--out", str(run), "--json")
    report = json.loads(in_a_process(*words, path=site))
    assert report["params_after"] <= (1 - 0.75) * report["params_before"]
    assert report["max_relative_difference"] <= 1e-5
    # From here on in this process, which finds the plugin the same way.
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("COLUMNS", "120")
    assert "scikit-learn's digits" in call("plugins").succeeded().out
    table = json.loads(call("groups", "--plugin", "digits", "--json").succeeded().out)
    assert [row["proved"] for row in table] == [True, True]
    for command in ("compress", "groups"):
        shown = call(command, "--plugin", "digits", "--help").succeeded().out
        assert "--width" in shown
        assert "--teacher" not in shown
    student = l0prune.load(run)
    assert sum(parameter.numel() for parameter in student.parameters()) == report["params_after"]
    assert isinstance(student, nn.Sequential)
    # The plugin writes no formats and measures nothing: the run is taken as any network.
    found = json.loads(call("bench", run, "--seconds", "0.05", "--json").succeeded().out)
    assert found["models"][str(run)]["parameters"] == report["params_after"]
    call("export", run, "--to", "torch.export").succeeded()
    assert torch.export.load(run / "exports/torch.export.pt2").module()(torch.zeros(3, 1, 8, 8)).shape == (3, 10)
    call("evaluate", run).refused("plugin evaluates nothing: digits")
    assert json.loads(call("verify", run, "--json").succeeded().out)[0]["holds"]
    own_loop(tmp_path / "own", json.loads((run / "model.json").read_text())["architecture"])
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[1200:, None] / 16
    right = student(images).argmax(1) == torch.tensor(digits.target)[1200:]
    assert right.float().mean() > 0.85


def own_loop(folder: Path, architecture: dict[str, int]) -> None:
    """What a loop of one's own made of the plugin's network is opened by the plugin."""
    model = l0prune.get_plugin("digits").build(architecture)
    pruner = l0prune.wrap(model, torch.randn(2, 1, 8, 8), target_sparsity=0.5, total_steps=10)
    for _ in range(10):
        model(torch.randn(2, 1, 8, 8)).square().mean().backward()
        pruner.step()
    smaller = pruner.finalize()
    pruner.save_run(folder, plugin="digits", architecture=architecture)
    x = torch.randn(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(l0prune.load(folder)(x), smaller(x))
    checks = json.loads(call("verify", folder, "--repeat", "--json").succeeded().out)[0]["checks"]
    assert {check["name"] for check in checks if not check["holds"]} == {"repeat"}
    call("bench", folder, "--seconds", "0.05").succeeded()


def test_without_its_entry_point_there_is_no_such_plugin() -> None:
    call("compress", "--plugin", "digits").refused("no such plugin: digits")


def test_the_docs_show_it_as_it_is() -> None:
    page = Path(__file__).parents[3] / "docs/how-to/plugin.md"
    assert (PROJECT / "l0prune_digits.py").read_text().strip() in page.read_text(encoding="utf-8")
