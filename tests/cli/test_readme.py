"""The README's examples do what they say. Each runs in a folder of its own, where what it writes stays."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

README = Path(__file__).parents[2] / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
ELSEWHERE = ("# huggingface", "# onnx", "# torchscript", "# torch.export", "# s3prl", "# dphubert", '"""A plugin')
"""Begin those that the tests of the exports and of the plugin run."""
TOO_LONG = "report = l0prune.compress("
"""Begins the recipe `quick`, whole."""


def run(words: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the example that holds `words`; returns its names."""
    (example,) = (example for example in EXAMPLES if words in example)
    names: dict[str, Any] = {}
    monkeypatch.chdir(folder)
    exec(compile(example, str(README), "exec"), names)
    return names


def test_a_student_opens_in_three_lines(finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(finished.folder, tmp_path / "runs" / "speech-quick")
    names = run("student.extract_features", tmp_path, monkeypatch)
    assert names["features"][-1].shape == (2, 49, 32)
    assert names["lengths"].tolist() == [49, 37]


def test_wrap_in_a_training_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run("pruner = l0prune.wrap(", tmp_path, monkeypatch)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["smaller"]
    inputs = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(names["smaller"](inputs), names["again"](inputs))
    counts = [sum(p.numel() for p in net.parameters()) for net in (names["smaller"], names["build"]())]
    assert counts[0] <= counts[1] / 2


def test_prune_without_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run("l0prune.prune(", tmp_path, monkeypatch)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pruned"]
    inputs = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(names["smaller"](inputs), names["again"](inputs))
    counts = [sum(p.numel() for p in net.parameters()) for net in (names["smaller"], names["build"]())]
    assert counts[0] <= counts[1] / 2


def test_groups_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run("hidden = l0prune.PruneGroup(", tmp_path, monkeypatch)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]
    assert sum(p.numel() for p in names["small"].parameters()) == names["report"].params_after


def test_no_example_is_left_out() -> None:
    here = (
        "student.extract_features",
        "pruner = l0prune.wrap(",
        "l0prune.prune(",
        "hidden = l0prune.PruneGroup(",
        TOO_LONG,
    )
    for example in EXAMPLES:
        assert example.startswith(ELSEWHERE) or any(words in example for words in here), example
