"""Distillation objectives against formulas written out."""

from collections.abc import Callable

import pytest
import torch
from l0prune_speech.distillation.objective import Distillation, matched_layers, set_dropout
from l0prune_speech.encoder.modules import SpeechEncoder
from torch import nn

from l0prune import ConfigError

Make = Callable[..., SpeechEncoder]


@pytest.mark.parametrize(
    ("depth", "layers"), [(6, (0, 2, 4, 6)), (12, (0, 4, 8, 12)), (24, (0, 8, 16, 24)), (2, (0, 1, 2)), (1, (0, 1))]
)
def test_matched_layers_are_the_papers(depth: int, layers: tuple[int, ...]) -> None:
    assert matched_layers(depth) == layers


def test_a_copy_of_the_teacher_is_at_distance_zero(make_encoder: Make) -> None:
    objective = Distillation(make_encoder(), make_encoder(), layers=(0, 1, 2, 3)).eval()
    losses = objective(torch.randn(2, 800))
    assert losses.total.item() == pytest.approx(0, abs=1e-6)
    assert set(losses.parts) == {"layer 0", "layer 1", "layer 2", "layer 3"}
    assert losses.amount == pytest.approx(2 * 800 / 16_000)


def test_total_is_the_mean_over_layers_and_layer_0_precedes_the_positional_convolution(make_encoder: Make) -> None:
    student, teacher = make_encoder(0), make_encoder(1)
    objective = Distillation(student, teacher, layers=(0, 2)).eval()
    waveforms = torch.randn(2, 800)
    losses = objective(waveforms)
    torch.testing.assert_close(losses.total, torch.stack(list(losses.parts.values())).mean())
    features, _ = student.feature_extractor(waveforms, None)
    zero = student.encoder.feature_projection(features)
    torch.testing.assert_close(student.hidden_states(waveforms)[0], zero)
    torch.testing.assert_close(student.hidden_states(waveforms)[1:], student.extract_features(waveforms)[0])


def test_layers_above_0_share_a_projection_and_the_teacher_is_not_trained(make_encoder: Make) -> None:
    objective = Distillation(make_encoder(), make_encoder(1), layers=(0, 1, 3))
    assert set(objective.projections) == {"first", "others"}
    trained = {id(parameter) for parameter in objective.parameters()}
    assert not trained & {id(parameter) for parameter in objective.targets.teacher.parameters()}
    objective.train()
    assert not objective.targets.teacher.training
    assert not any("teacher" in name for name in objective.state_dict())


def test_prediction_layers_read_the_last_layer_alone(make_encoder: Make) -> None:
    student = make_encoder()
    objective = Distillation(student, make_encoder(1), layers=(1, 3), mode="prediction").eval()
    waveforms = torch.randn(2, 800)
    before = objective(waveforms).total
    with torch.no_grad():
        student.hidden_states(waveforms)
    assert set(objective.projections) == {"1", "3"}
    assert isinstance(objective.projections["1"][1], nn.GELU)
    assert torch.isfinite(before)
    with pytest.raises(ConfigError, match="layers or prediction"):
        Distillation(student, make_encoder(1), layers=(1,), mode="predict")


def test_dropout_and_layer_drop_switch(make_encoder: Make) -> None:
    waveforms = torch.randn(1, 800)
    student = make_encoder()
    set_dropout(student, dropout=False, layer_drop=0.0)
    student.train()
    assert torch.equal(student.hidden_states(waveforms)[-1], student.hidden_states(waveforms)[-1])
    student = make_encoder()
    set_dropout(student, dropout=True, layer_drop=0.0)
    student.train()
    assert not torch.equal(student.hidden_states(waveforms)[-1], student.hidden_states(waveforms)[-1])
    set_dropout(student, dropout=False, layer_drop=0.999999)
    states = student.hidden_states(waveforms)
    assert all(torch.equal(states[1], state) for state in states[2:])


def test_normalised_waveforms_have_zero_mean_and_unit_variance_over_valid_samples(make_encoder: Make) -> None:
    encoder = make_encoder(normalize_waveform=True)
    waveforms, lengths = torch.randn(2, 800) * 3 + 1, torch.tensor([800, 500])
    normalized = encoder.normalize(waveforms, lengths)
    for row, length in zip(normalized, lengths.tolist(), strict=True):
        assert row[:length].mean().item() == pytest.approx(0, abs=1e-5)
        assert row[:length].var(correction=0).item() == pytest.approx(1, abs=1e-3)
        assert not row[length:].any()
    alone = encoder.normalize(waveforms[1:, :500])
    torch.testing.assert_close(normalized[1:, :500], alone)
