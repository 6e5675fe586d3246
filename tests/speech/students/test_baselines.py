"""The baselines: budgets met, what they begin from, and that they open as teachers."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from l0bench.students.baselines import BEGINNINGS
from l0bench.students.beginnings import size_of
from l0bench.students.entries import BASELINES, all_entries
from l0bench.students.low_rank import Pair, factored, multiplied_out, truncated
from l0bench.students.making import Comparison, make
from l0bench.students.one_shot import magnitudes, taylor_terms
from l0prune_speech.encoder.groups import encoder_groups
from l0prune_speech.encoder.modules import SpeechEncoder
from l0prune_speech.formats.teachers import load_teacher
from torch import nn

import l0prune
from l0prune import ConfigError, RunConfig, Task
from l0prune.measuring.count import parameters

Make = Callable[..., SpeechEncoder]
Prepared = Callable[..., tuple[Task, RunConfig]]


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_is_trained_at_its_budget_and_opens_as_a_teacher(comparison: Comparison, name: str) -> None:
    facts = make(comparison, all_entries(comparison.config())[name], seed=0)
    assert 0.98 * facts["budget"] <= facts["parameters"] <= facts["budget"]
    assert facts["budget"] == int(facts["parameters_before"] * 0.25)
    assert facts["steps"] == 6
    # Predicting layers is another loss than matching them.
    assert (facts["loss"] is None) == (name == "distilhubert")
    assert facts["own_loss"] < facts["loss_at_the_cut"]
    opened = load_teacher(facts["path"]).encoder
    if name == "low-rank":
        assert parameters(opened) == facts["parameters_before"]
        assert facts["macs"] > 0
    else:
        assert parameters(opened) == facts["parameters"]


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("share", [0.4, 0.75])
def test_budgets_are_met_at_other_sizes(comparison: Comparison, name: str, share: float, prepared: Prepared) -> None:
    task, config = prepared(comparison)
    budget = int(share * parameters(task.objective.student))
    student = BEGINNINGS[name](task, config, budget).student
    assert 0.98 * budget <= parameters(student) <= budget
    assert torch.isfinite(student.hidden_states(torch.randn(1, 4000))[-1]).all()


def test_distilhubert_holds_its_teachers_first_layers(comparison: Comparison, prepared: Prepared) -> None:
    task, config = prepared(comparison)
    teacher = task.objective.student
    beginning = BEGINNINGS["distilhubert"](task, config, parameters(teacher) // 2)
    student = beginning.student
    assert len(student.encoder.transformer.layers) == 2
    assert beginning.mode == "prediction"
    assert beginning.layers == (1, 2, 3)
    own, theirs = (
        model.get_submodule("encoder.transformer.layers.1.feed_forward.intermediate_dense").weight
        for model in (student, teacher)
    )
    norms = {tuple(row) for row in theirs[:, :4].tolist()}
    assert len(own) < len(theirs)
    assert all(tuple(row) in norms for row in own[:, :4].tolist())
    assert (
        len(BEGINNINGS["distilhubert"](task, config, parameters(teacher) * 9 // 10).student.encoder.transformer.layers)
        == 3
    )


def test_thin_is_narrow_everywhere(comparison: Comparison, layout: dict[str, Any], prepared: Prepared) -> None:
    task, config = prepared(comparison)
    student = BEGINNINGS["thin"](task, config, parameters(task.objective.student) // 4).student
    made = student.config
    share = made["encoder_embed_dim"] / layout["encoder_embed_dim"]
    assert share < 1
    assert made["encoder_num_layers"] == 3
    assert made["extractor_conv_layer_config"][0][0] == round(16 * share)
    assert made["encoder_ff_interm_features"] / layout["encoder_ff_interm_features"] == pytest.approx(share, abs=0.25)
    assert size_of(made) == parameters(student)


def test_pairs_multiplied_out_are_the_same_network(make_encoder: Make, layout: dict[str, Any]) -> None:
    encoder = make_encoder(**layout)
    student = factored(encoder, parameters(encoder) // 3).eval()
    pairs = [module for module in student.modules() if isinstance(module, Pair)]
    # Three convolutions between channels, the projection, and six matrices in each of three layers.
    assert len(pairs) == 3 + 1 + 18
    whole, waveforms = multiplied_out(student), torch.randn(2, 4000)
    assert not any(isinstance(module, Pair) for module in whole.modules())
    assert whole.state_dict().keys() == encoder.state_dict().keys()
    for expected, got in zip(student.hidden_states(waveforms), whole.hidden_states(waveforms), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", [nn.Linear(12, 9), nn.Conv1d(4, 9, 3, stride=2, bias=False)])
def test_truncation_loses_what_the_singular_values_say(layer: nn.Linear | nn.Conv1d) -> None:
    values = torch.linalg.svdvals(layer.weight.flatten(1))
    for rank in (1, 4, 9):
        whole = truncated(layer, rank).multiplied_out()
        lost = (whole.weight - layer.weight).norm()
        torch.testing.assert_close(lost, values[rank:].norm(), rtol=1e-4, atol=1e-5)
    inputs = torch.randn(2, 12) if isinstance(layer, nn.Linear) else torch.randn(2, 4, 20)
    torch.testing.assert_close(truncated(layer, 9)(inputs), layer(inputs), rtol=1e-4, atol=1e-5)


def test_importances_are_torch_prunings_on_the_methods_groups(comparison: Comparison, prepared: Prepared) -> None:
    task, config = prepared(comparison)
    student, groups = task.objective.student, task.groups
    number = [group.name for group in groups].index("encoder.transformer.layers.1.feed_forward.units")
    ends = np.cumsum([group.units for group in groups])[:-1]
    block = student.get_submodule("encoder.transformer.layers.1.feed_forward")
    enters, leaves = block.intermediate_dense.weight.detach(), block.output_dense.weight.detach()
    by_hand = enters.square().sum(1) + leaves.square().sum(0)
    scores = magnitudes(student, groups)
    np.testing.assert_allclose(np.split(scores, ends)[number], by_hand / by_hand.mean(), rtol=1e-5)
    assert np.array_equal(scores, magnitudes(student, groups))
    terms = taylor_terms(task, config)
    assert np.array_equal(terms, taylor_terms(task, config))
    assert (terms >= 0).all()
    chance = np.random.default_rng(0).random(len(scores))
    orders = [np.argsort(values).tolist() for values in (scores, terms, chance)]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert all(parameter.grad is None for parameter in student.parameters())


def test_a_copy_without_dropout_has_no_taylor_expansion(comparison: Comparison, prepared: Prepared) -> None:
    settings = l0prune.support.merge(comparison.settings, {"speech": {"dropout": False}})
    task, config = prepared(Comparison(folder=comparison.folder, settings=settings))
    with pytest.raises(ConfigError, match="no loss to expand"):
        taylor_terms(task, config)


def test_units_of_wavlm_are_chosen_too(make_encoder: Make, layout: dict[str, Any]) -> None:
    encoder = make_encoder(**layout, encoder_num_buckets=8, encoder_max_distance=16)
    groups = encoder_groups(encoder)
    assert len(magnitudes(encoder, groups)) == sum(group.units for group in groups)
    student = factored(encoder, parameters(encoder) // 2)
    waveforms = torch.randn(1, 4000)
    torch.testing.assert_close(
        multiplied_out(student).hidden_states(waveforms)[-1], student.hidden_states(waveforms)[-1], rtol=1e-4, atol=1e-5
    )
