"""A run that an older version began goes on in this one, and ends where it would have ended."""

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

import l0prune

DATA = Path(__file__).parents[2] / "data" / "older_run"
FACTS = json.loads((DATA / "facts.json").read_text())


@pytest.fixture(scope="module")
def older() -> ModuleType:
    """The script that began the run: the task is in it."""
    spec = importlib.util.spec_from_file_location("older_run", DATA / "begin.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_resumed_to_the_same_weights(older: ModuleType, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(DATA / "run", run)
    report = l0prune.compress(older.make_task(), settings=older.SETTINGS, out=run, resume=True)
    assert report.kept_units["hidden"]["kept"] == FACTS["kept"]
    # One was made before the run was stopped.
    assert [cut["step"] for cut in report.compactions] == FACTS["compactions"]
    assert min(FACTS["compactions"]) < older.STOP_AT
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [(row["stage"], row["step"]) for row in rows]
    assert steps == [*(("joint", i) for i in range(1, 61)), *(("further", i) for i in range(1, 11))]
    expected, found = load_file(DATA / "weights.safetensors"), load_file(run / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        if older.made_by().items() <= FACTS.items():
            assert torch.equal(found[name], tensor), name
        else:
            torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4)
    assert report.distill_loss_final == pytest.approx(FACTS["loss"], rel=1e-4)
    student = l0prune.load(run, older.network)
    assert all(torch.equal(student.state_dict()[name], tensor) for name, tensor in found.items())
