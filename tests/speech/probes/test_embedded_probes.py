"""Probes on the embedded set: what they find comes from the labels and from pre-training."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from l0prune_speech.probes import clips
from l0prune_speech.probes.evaluating import evaluate_models

from l0prune import Evaluation, EvaluationSettings

SETTINGS = EvaluationSettings(tasks=("keyword",), seeds=(0, 1), device="cpu", against="embedded", max_minutes=2.5)


def ignore(_text: str) -> None:
    pass


@pytest.fixture(scope="module")
def short() -> Iterator[None]:
    """Probes train for fewer steps: what is compared here differs by far more than they would still gain."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips, "_SCHEDULE", replace(clips._SCHEDULE, steps=120))
        yield


@pytest.fixture(scope="module")
def found(short: None) -> Evaluation:
    return evaluate_models(["embedded", "filterbanks", "random:embedded"], SETTINGS, ignore)


def test_pre_training_is_worth_more_than_filterbanks_and_random_weights(found: Evaluation) -> None:
    means = {score.model: score.mean for score in found.scores}
    assert means["embedded"] > means["filterbanks"]
    assert means["embedded"] > means["random:embedded"] + 0.3
    assert means["random:embedded"] > found.tasks["keyword"]["chance"]


def test_shuffled_labels_give_chance(found: Evaluation) -> None:
    shuffled = evaluate_models(["filterbanks"], replace(SETTINGS, shuffle_labels=True, against=None), ignore)
    (score,) = shuffled.scores
    assert score.mean == pytest.approx(shuffled.tasks["keyword"]["chance"], abs=0.08)


def test_layers_of_other_weights_are_other_layers(found: Evaluation) -> None:
    assert {layer.model for layer in found.layers} == {"random:embedded"}
    assert [layer.layer for layer in found.layers] == list(range(7))
    assert all(0 < layer.measures["cka"] < 0.95 for layer in found.layers)
