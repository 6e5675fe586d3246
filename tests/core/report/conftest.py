"""Run directories by hand: what a report reads, without a training."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REPORT: dict[str, Any] = {
    "teacher": "embedded",
    "params_before": 100,
    "params_after": 25,
    "macs_before": 1000,
    "macs_after": 200,
    "macs_per": "input",
    "sparsity": 0.75,
    "target_sparsity": 0.75,
    "versions": {"torch": "2"},
    "seed": 0,
}


@pytest.fixture(autouse=True)
def _rendered(rendered: None) -> None:
    """These are tests of pictures."""


@pytest.fixture
def finished_report() -> dict[str, Any]:
    """A report.json with all that a page cannot do without."""
    return {**REPORT}


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """A finished run with more files by name: make_run("a/run", bench={...})."""

    def make(name: str = "run", *, settings: str = 'plugin = "digits"', **files: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "config.toml").write_text(settings)
        for file, content in {"report": REPORT, **files}.items():
            (folder / f"{file}.json").write_text(json.dumps(content))
        return folder

    return make
