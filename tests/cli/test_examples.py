"""The examples of the pages run from their first line to their last, as a reader runs them."""

from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile((EXAMPLES / name).read_text(encoding="utf-8"), name, "exec"), names)
    return names


@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("rendered")
def test_digits_to_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run("digits_to_onnx.py", tmp_path, monkeypatch)
    assert (tmp_path / "digits.onnx").is_file()
    assert names["dense_accuracy"] > 0.8
    assert names["accuracy"](names["smaller"]) > 0.8


@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("rendered")
def test_text_classifier_with_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run("text_classifier_with_trainer.py", tmp_path, monkeypatch)
    assert names["again"].config.intermediate_size < 128
    assert not list((tmp_path / "classifier").glob("*.py"))


@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("rendered")
def test_speech_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = run("speech_end_to_end.py", tmp_path, monkeypatch)
    assert names["report"].params_after <= 0.8 * names["report"].params_before
    assert (tmp_path / "runs" / "tiny" / "report.html").is_file()


def test_every_example_is_run_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    in_cells = [path.name for path in EXAMPLES.glob("*.py") if "# %%" in path.read_text(encoding="utf-8")]
    assert all(f'"{name}"' in text for name in in_cells)
