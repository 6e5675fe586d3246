"""benchmarks/recognition on a tiny random Whisper: every method meets its budget, and all are scored alike."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from l0bench.recognition import losses, running
from l0bench.recognition.evaluation import evaluate
from l0bench.recognition.kept_states import kept
from l0bench.recognition.problem import Problem, Sets
from l0bench.recognition.recogniser import Recogniser
from l0bench.recognition.trial import Trial
from tiny_whisper import tiny_recogniser, tiny_sets

from l0prune.measuring.count import parameters

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
TRIAL = Trial(method="wrap", label="wrap", size=40, steps=12, objective="task", rate=1e-3, seed=0)


@pytest.fixture(scope="module")
def recogniser() -> Recogniser:
    return tiny_recogniser()


@pytest.fixture(scope="module")
def sets(recogniser: Recogniser, tmp_path_factory: pytest.TempPathFactory) -> Sets:
    return tiny_sets(recogniser, tmp_path_factory.mktemp("material"))


@pytest.mark.parametrize("method", running.METHODS)
def test_every_method_meets_the_budget_and_is_scored(method: str, recogniser: Recogniser, sets: Sets) -> None:
    dense = parameters(recogniser.encoder)
    row = running.run_on(Problem(recogniser, sets, replace(TRIAL, method=method, label=method)))
    assert row["parameters"] <= row["budget"] <= 0.6 * dense
    # torch-pruning counts channels; all others end within their smallest unit.
    assert row["parameters"] >= row["budget"] - (0.05 if method.startswith("torch-pruning") else 0.01) * dense
    assert len(row["prompt_errors"]) == len(sets.test)
    assert 0 <= row["errors_capped"] <= 1
    assert {
        "nats",
        "errors_plain",
        "distance_last",
        "loss_before_cut",
        "loss_after_cut",
        "nats_after_cut",
    } <= row.keys()
    assert parameters(recogniser.encoder) == dense


@pytest.mark.parametrize("objective", losses.OBJECTIVES)
def test_a_trial_repeats_for_every_objective(objective: str, recogniser: Recogniser, sets: Sets) -> None:
    trial = replace(TRIAL, objective=objective, trial=True)
    rows = [running.run_on(Problem(recogniser, sets, trial)) for _ in range(2)]
    assert rows[0]["validation_nats"] == rows[1]["validation_nats"]
    # A rate is chosen without a look at the test set.
    assert "nats" not in rows[0]


def test_what_the_dense_encoder_expects_adds_nothing_for_itself(recogniser: Recogniser, sets: Sets) -> None:
    with torch.no_grad():
        found = {
            kind: losses.Objective(kind, recogniser)(recogniser.encoder, sets.pool, [0, 1])
            for kind in ("task", "tokens")
        }
        logits, tokens, rows = recogniser.logits(torch.randn(1, 500, recogniser.encoder.config.d_model), [[5, 6, 7]])
    # Its states are kept in half precision.
    assert float(found["tokens"].total) == pytest.approx(float(found["task"].total), abs=1e-3)
    assert float(losses.divergence(logits, logits)) == pytest.approx(0, abs=1e-6)
    assert float(losses.divergence(logits, logits.flip(1))) > 0
    assert tokens.tolist() == [5, 6, 7]
    assert rows.tolist() == [0, 0, 0]


def test_a_copy_of_the_teacher_is_at_the_floor_of_the_distance(recogniser: Recogniser, sets: Sets) -> None:
    figures = evaluate(recogniser.encoder, sets.test, recogniser)
    floor = float(torch.nn.functional.softplus(torch.tensor(-1.0)))
    assert figures["distance_last"] == pytest.approx(floor, abs=2e-3)
    assert figures["distance_all"] == pytest.approx(floor, abs=2e-3)


def test_nats_are_those_of_the_whole_model(recogniser: Recogniser, sets: Sets) -> None:
    """Logits at the asked tokens alone, against transformers' own loss over a padded batch."""
    with torch.no_grad():
        states = recogniser.encoder(sets.test.features(range(3))).last_hidden_state
        tokens = [sets.test.tokens[0], sets.test.tokens[1][:2], sets.test.tokens[2]]
        sums, counts = recogniser.nats(states, tokens)
        for i, mine in enumerate(tokens):
            given = torch.tensor([[*recogniser.prefix, *mine]])
            logits = recogniser.model(input_features=sets.test.features([i]), decoder_input_ids=given[:, :-1]).logits[0]
            expected = torch.nn.functional.cross_entropy(logits[1:], given[0, 2:], reduction="sum")
            assert counts[i] == len(mine)
            torch.testing.assert_close(sums[i], expected, rtol=1e-5, atol=1e-5)


def test_batches_hear_every_window_before_any_again_and_repeat(sets: Sets) -> None:
    one, other = sets.pool.batches(2, seed=3), sets.pool.batches(2, seed=3)
    heard = [next(one) for _ in range(8)]
    assert heard == [next(other) for _ in range(8)]
    for turn in (heard[:4], heard[4:]):
        assert sorted(i for pair in turn for i in pair) == list(range(8))


def test_states_are_computed_once(recogniser: Recogniser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tiny_sets(recogniser, tmp_path)
    monkeypatch.setattr("l0bench.recognition.kept_states.keep_states", lambda *_: pytest.fail("computed again"))
    second = tiny_sets(recogniser, tmp_path)
    np.testing.assert_array_equal(first.pool.features([1]), second.pool.features([1]))
    with pytest.raises(BaseException, match="computed again"):
        kept("pool", [], recogniser, tmp_path)


def test_bfloat16_trains_too(recogniser: Recogniser, sets: Sets) -> None:
    row = running.run_on(Problem(recogniser, sets, replace(TRIAL, method="random", precision="bfloat16", trial=True)))
    assert np.isfinite(row["validation_nats"])
