"""benchmarks/digits.py: every method meets its budget, rates are chosen alike, leads are in deviations."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
from commands import command
from l0bench.digit_pruning import data, running, table
from l0bench.digit_pruning.methods import METHODS
from l0bench.digit_pruning.networks import NETWORKS
from l0bench.digit_pruning.trial import Trial

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
digits = command("digits")
TRIAL = Trial(network="transformer", method="wrap", label="wrap", size=75, steps=12, rate=1e-3, seed=0)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    data.trained.cache_clear()
    monkeypatch.setattr(data, "DENSE_STEPS", 3)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_meets_the_budget(network: str, method: str) -> None:
    row = running.run_row(asdict(replace(TRIAL, network=network, method=method, label=method)))
    assert "failed" not in row
    assert row["parameters"] <= row["budget"]
    assert 0 <= row["accuracy"] <= 1
    if method == "wrap":
        assert {"expected_sparsity", "largest_deviation", "loss_before_cut", "loss_after_cut"} <= row.keys()


def test_a_run_repeats() -> None:
    rows = [running.run_row(asdict(TRIAL)) for _ in range(2)]
    assert rows[0]["test_loss"] == rows[1]["test_loss"]


def test_rows_that_are_there_are_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def run(wish: dict) -> dict:
        ran.append(wish)
        figures = {"accuracy": 0.9, "validation_accuracy": 0.9, "validation_loss": abs(wish["rate"] - 3e-3)}
        return wish | figures | {"seconds": 0.1, "parameters": 10}

    monkeypatch.setattr(running, "run_row", run)
    arguments = ["run", "--out", str(tmp_path / "rows.jsonl"), "--networks", "cnn", "--sizes", "50", "--steps", "9"]
    arguments += ["--methods", "taylor", "random", "--seeds", "0"]
    assert digits.main(arguments) == 0
    assert [wish["trial"] for wish in ran] == [False] + [True] * 18 + [False] * 2
    assert {wish["rate"] for wish in ran[-2:]} == {3e-3}
    count = len(ran)
    assert digits.main([*arguments, "1"]) == 0
    assert [(wish["label"], wish["seed"]) for wish in ran[count:]] == [("dense", 1), ("taylor", 1), ("random", 1)]
    assert digits.main(["table", "--out", str(tmp_path / "rows.jsonl")]) == 0
    assert "90.0 ± 0.0" in (tmp_path / "rows.md").read_text()


def test_a_lead_is_in_deviations_of_the_less_certain_one() -> None:
    assert table.lead([92.0, 94.0], [90.0, 90.0]) == pytest.approx(3 / 2**0.5)
    assert table.lead([90.0, 90.0], [92.0, 94.0]) == pytest.approx(-3 / 2**0.5)
    assert table.lead([1.0], [2.0]) is None
    assert table.lead([1.0, 1.0], [2.0, 2.0]) is None
