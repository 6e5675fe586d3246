"""A plugin of another distribution, installed and found by its entry point alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import l0prune

PROJECT = Path(__file__).parents[1] / "digits_plugin"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the plugin."""
    folder = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", folder, PROJECT], check=True)
    return folder


def l0prune_command(*arguments: str, path: Path | str = "") -> subprocess.CompletedProcess:
    paths = os.pathsep.join(filter(None, (str(path), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": paths, "COLUMNS": "120"}
    command = [sys.executable, "-m", "l0prune_cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_it_compresses_a_classifier(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "scikit-learn's digits" in l0prune_command("plugins", path=site).stdout
    table = json.loads(l0prune_command("groups", "--plugin", "digits", "--json", path=site).stdout)
    assert [row["proved"] for row in table] == [True, True]
    for command in ("compress", "groups"):
        shown = l0prune_command(command, "--plugin", "digits", "--help", path=site).stdout
        assert "--width" in shown
        assert "--teacher" not in shown
    run = tmp_path / "run"
    done = l0prune_command("compress", "--plugin", "digits", "--width", "24", "--out", str(run), "--json", path=site)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["params_after"] <= (1 - 0.75) * report["params_before"]
    assert report["max_relative_difference"] <= 1e-5
    # Opened in this process, which finds the plugin the same way.
    monkeypatch.syspath_prepend(str(site))
    student = l0prune.load(run)
    assert sum(parameter.numel() for parameter in student.parameters()) == report["params_after"]
    assert isinstance(student, nn.Sequential)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[1200:, None] / 16
    right = student(images).argmax(1) == torch.tensor(digits.target)[1200:]
    assert right.float().mean() > 0.85


def test_without_its_entry_point_there_is_no_such_plugin() -> None:
    done = l0prune_command("compress", "--plugin", "digits")
    assert done.returncode == 2
    assert "no such plugin: digits" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_docs_show_it_as_it_is() -> None:
    page = Path(__file__).parents[3] / "docs/how-to/plugin.md"
    assert (PROJECT / "l0prune_digits.py").read_text().strip() in page.read_text(encoding="utf-8")
