"""Terms beside hidden states in the whole objective: padding, cuts, caches, masks, what is refused."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from l0prune_speech.distillation import Distillation, TermSettings, all_terms, set_dropout
from l0prune_speech.distillation.targets import TargetCache
from l0prune_speech.encoder import encoder_groups
from l0prune_speech.encoder.modules import SpeechEncoder
from l0prune_speech.units import UNITS
from torch import Tensor, nn

from l0prune import ConfigError, DataError, GatedModel
from l0prune.config import CompactionConfig, ControllerConfig
from l0prune.gates.controller import Controller

Make = Callable[..., SpeechEncoder]
LAYOUTS = {
    "base": {},
    "large": {"extractor_mode": "layer_norm", "extractor_conv_bias": True, "encoder_layer_norm_first": True},
    "wavlm": {"encoder_num_buckets": 8, "encoder_max_distance": 20},
}
OF_ENCODERS = [name for name, term in all_terms().items() if term.between != "logits"]
EVERY = dict.fromkeys(OF_ENCODERS, 1.0)
SETTINGS = TermSettings(unit_count=4, layer_clusters=2, unit_layers=(2, 3))


def survey() -> Iterator[Tensor]:
    yield torch.randn(2, 4000, generator=torch.Generator().manual_seed(7))


def make(student: nn.Module, teacher: nn.Module, weights: dict[str, float] = EVERY, **more: Any) -> Distillation:
    teacher.eval().requires_grad_(False)
    more = {"layers": (0, 1, 3), "settings": SETTINGS, "survey": survey, **more}
    return Distillation(student, teacher, weights=weights, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [name for name in OF_ENCODERS if name != "masked_units"])
def test_a_padded_batch_is_the_mean_of_its_clips(name: str, make_encoder: Make) -> None:
    """With layer norms in the convolutions: group norms average over padding, too."""
    student, teacher = (make_encoder(seed, **LAYOUTS["large"]).double() for seed in (0, 1))
    objective = make(student, teacher, {name: 1.0}).double().eval()
    waveforms, lengths = torch.randn(3, 900, dtype=torch.float64), torch.tensor([900, 500, 700])
    for row, length in zip(waveforms, lengths.tolist(), strict=True):
        row[length:] = 0
    with torch.no_grad():
        whole = objective(waveforms, lengths)
        alone = [objective(waveforms[clip : clip + 1, :length]) for clip, length in enumerate(lengths.tolist())]
        frames = [student.hidden_states(waveforms[:1, :length])[0].shape[1] for length in lengths.tolist()]
    expected = sum(losses.total * count for losses, count in zip(alone, frames, strict=True)) / sum(frames)
    # Positions of the positional convolution's padding and keys far below the others make the last digits.
    torch.testing.assert_close(whole.total, expected, rtol=1e-6, atol=1e-8)
    assert whole.amount == pytest.approx(2100 / 16_000)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", OF_ENCODERS)
def test_a_cut_changes_no_term(name: str, layout: str, make_encoder: Make) -> None:
    """Closed heads count nothing, and a layer without attention is left out before and after."""
    student, teacher = make_encoder(0, **LAYOUTS[layout]), make_encoder(1, **LAYOUTS[layout])
    gated = GatedModel(student, encoder_groups(student, UNITS), target_sparsity=0.5)
    objective = make(student, teacher, {name: 1.0}).eval()
    waveforms = torch.randn(2, 900)
    for seed in range(3):
        with torch.no_grad():
            noise = torch.randn(len(gated.here), generator=torch.Generator().manual_seed(seed))
            gated.gates.log_alpha.copy_(3 * noise)
            gated.eval()
            before = objective(waveforms).total
            pruned, _plan = gated.pruned()
            objective.student = pruned
            after = objective(waveforms).total
            objective.student = student
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_training_goes_on_after_a_compaction(layout: str, make_encoder: Make) -> None:
    student, teacher = make_encoder(0, **LAYOUTS[layout]), make_encoder(1, **LAYOUTS[layout])
    gated = GatedModel(student, encoder_groups(student), target_sparsity=0.5)
    objective = make(student, teacher)
    objective.begin()
    trained = [*objective.parameters()]
    optimizer = torch.optim.AdamW([{"params": trained}, {"params": [gated.gates.log_alpha]}])
    config = CompactionConfig(patience=1, closed_below=0.6, least_share=0.0)
    controller = Controller(gated, ControllerConfig(), compaction=config)
    with torch.no_grad():
        gated.gates.log_alpha.copy_(3 * torch.randn(len(gated.here)))
    waveforms = torch.randn(2, 900)
    objective.eval()
    before = objective(waveforms).total
    controller.cut(gated.gates.select(), [optimizer])
    torch.testing.assert_close(objective(waveforms).total, before, rtol=1e-4, atol=1e-5)
    objective.train()
    gated.gates.sample()
    losses = objective(waveforms)
    losses.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in objective.parameters() if p.grad is not None)
    assert gated.gates.log_alpha.grad is not None
    optimizer.step()


def test_activation_checkpointing_changes_no_gradient(make_encoder: Make) -> None:
    found = []
    for switched in (False, True):
        student, teacher = make_encoder(0), make_encoder(1)
        student.encoder.transformer.activation_checkpointing = switched  # type: ignore[union-attr, assignment]
        torch.manual_seed(3)
        objective = make(student, teacher).train()
        objective.begin()
        torch.manual_seed(0)
        objective(torch.ones(2, 900).cumsum(1).sin()).total.backward()
        found.append([p.grad for p in student.parameters() if p.grad is not None])
    assert len(found[0]) == len(found[1]) > 20
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("precise", [True, False])
def test_targets_of_every_term_come_from_the_cache(precise: bool, make_encoder: Make, tmp_path: Path) -> None:
    student, teacher, batch = make_encoder(0), make_encoder(1), torch.randn(2, 900)
    objective = make(student, teacher, cache=TargetCache(tmp_path, "one", 10**9)).eval()
    objective.begin()
    with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
        expected = objective(batch)
        passes: list[object] = []
        teacher.register_forward_pre_hook(lambda *_: passes.append(1))
        calls = teacher.hidden_states
        teacher.hidden_states = lambda *given: passes.append(given) or calls(*given)  # type: ignore[method-assign, func-returns-value]
        again = objective(batch)
    assert not passes
    for name, part in expected.parts.items():
        assert torch.equal(again.parts[name], part)
    # The published objective's entries are others.
    assert len([*tmp_path.glob("*/*.npz")]) == 1
    make(student, teacher, {"l1": 1.0}, cache=TargetCache(tmp_path, "one", 10**9)).eval()(batch)
    assert len([*tmp_path.glob("*/*.npz")]) == 2


def test_a_clip_with_hidden_frames_is_for_masked_prediction_alone(make_encoder: Make) -> None:
    student, teacher, waveforms = make_encoder(0), make_encoder(1), torch.randn(4, 900)
    set_dropout(student, dropout=False, layer_drop=0.0)
    objective = make(student, teacher, {"l1": 1.0, "masked_units": 1.0}).train()
    objective.begin()
    plain = make(student, teacher, {"l1": 1.0}).train()
    plain.projections = objective.projections
    torch.manual_seed(5)
    parts = objective(waveforms).parts
    pairs = [plain(waveforms[[i, j]]).parts["layer 3"].item() for i in range(4) for j in range(i)]
    assert min(abs(parts["layer 3"].item() - pair) for pair in pairs) < 1e-5
    # One clip is heard twice.
    assert objective(waveforms[:1]).parts["layer 3"].item() == pytest.approx(
        plain(waveforms[:1]).parts["layer 3"].item(), rel=1e-5
    )


def test_evaluation_hides_the_same_frames_each_time_and_training_others(make_encoder: Make) -> None:
    objective, waveforms = make(make_encoder(0), make_encoder(1), {"masked_units": 1.0}), torch.randn(2, 900)
    objective.eval()
    assert torch.equal(objective(waveforms).total, objective(waveforms).total)
    objective.train()
    assert not torch.equal(objective(waveforms).total, objective(waveforms).total)


def test_masked_prediction_is_learnt(make_encoder: Make) -> None:
    objective = make(make_encoder(1), make_encoder(1), {"masked_units": 1.0}).train()
    waveforms = torch.randn(4, 1600)
    objective.student.requires_grad_(True)
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-2)
    first = objective.eval()(waveforms).total.item()
    objective.train()
    for _ in range(40):
        optimizer.zero_grad()
        objective(waveforms).total.backward()
        optimizer.step()
    assert objective.eval()(waveforms).total.item() < first - 0.3


def test_learned_weights_are_those_of_uncertainty(make_encoder: Make) -> None:
    student, teacher, waveforms = make_encoder(0), make_encoder(1), torch.randn(2, 900)
    settings = TermSettings(layer_weighting="learned")
    equal = make(student, teacher, {"l1": 1.0}).eval()
    learned = make(student, teacher, {"l1": 1.0}, settings=settings).eval()
    # They begin as the mean.
    torch.testing.assert_close(learned(waveforms).total, equal(waveforms).total)
    with torch.no_grad():
        learned.log_scales.copy_(torch.tensor([0.3, -1.0, 2.0]))
    losses = learned(waveforms)
    parts = [losses.parts[f"layer {layer}"] for layer in (0, 1, 3)]
    expected = sum(part * torch.tensor(-s).exp() + s for part, s in zip(parts, (0.3, -1.0, 2.0), strict=True)) / 3
    torch.testing.assert_close(losses.total, expected)
    # Where nothing more is to be gained, each layer's scale is its loss.
    with torch.no_grad():
        learned.log_scales.copy_(torch.stack(parts).log())
    learned(waveforms).total.backward()
    assert learned.log_scales.grad is not None
    assert learned.log_scales.grad.abs().max().item() < 1e-6


def test_without_projections_states_are_compared_as_they_are(make_encoder: Make) -> None:
    student, teacher, waveforms = make_encoder(0), make_encoder(1), torch.randn(2, 900)
    weights, settings = {"l1": 1.0, "cluster_means": 1.0}, TermSettings(layer_clusters=2)
    with_projections = make(student, teacher, weights, settings=settings).eval()
    without = make(student, teacher, weights, settings=TermSettings(layer_clusters=2, projections=False)).eval()
    # Projections begin as the identity.
    torch.testing.assert_close(without(waveforms).total, with_projections(waveforms).total)
    added = {id(p) for p in without.parameters()} - {id(p) for p in student.parameters()}
    assert not added
    narrow = make_encoder(0, encoder_embed_dim=4)
    with pytest.raises(ConfigError, match=r"states of different widths need projections.*got 4 and 8"):
        make(narrow, teacher, {"l1": 1.0}, settings=TermSettings(projections=False))


def test_cluster_means_are_means_of_the_layers(make_encoder: Make) -> None:
    student, teacher, waveforms = make_encoder(0), make_encoder(1), torch.randn(2, 900)
    objective = make(student, teacher, {"cluster_means": 1.0}).eval()
    got = objective(waveforms).total
    assert objective.clusters is not None
    found = []
    for group in objective.clusters.groups:
        one, other = (
            sum(states[layer] for layer in group) / len(group)
            for states in (student.hidden_states(waveforms), teacher.hidden_states(waveforms))
        )
        found.append((one - other).abs().mean() + 1 - nn.functional.cosine_similarity(one, other, dim=-1).mean())
    torch.testing.assert_close(got, sum(found) / len(found))


def test_the_student_carries_nothing_of_the_terms(make_encoder: Make) -> None:
    student = make_encoder(0)
    names = set(copy.deepcopy(student).state_dict())
    objective = make(student, make_encoder(1)).train()
    objective(torch.randn(2, 900)).total.backward()
    assert set(student.state_dict()) == names
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in student.modules())


def test_what_was_found_is_found_again_in_a_saved_state(make_encoder: Make) -> None:
    objective, waveforms = make(make_encoder(0), make_encoder(1)).eval(), torch.randn(2, 900)
    expected = objective(waveforms).total

    def no_survey() -> Iterator[Tensor]:
        raise AssertionError("surveyed again")

    other = make(make_encoder(0), make_encoder(1), survey=no_survey).eval()
    other.load_state_dict(objective.state_dict())
    assert torch.equal(other(waveforms).total, expected)


@pytest.mark.parametrize(
    ("weights", "more", "words"),
    [
        (
            {"logits": 1.0},
            {},
            r"nothing to compare here: speech\.terms\.logits \(got no logits\); an encoder has no head",
        ),
        ({"gram_step": 1.0}, {"layers": (0,)}, r"speech\.terms\.gram_step \(got no steps\); match a layer above 0"),
        ({"attention": 1.0}, {"layers": (0,)}, r"speech\.terms\.attention \(got no maps\); match a layer above 0"),
        (
            {"cluster_means": 1.0},
            {"mode": "prediction"},
            r"speech\.terms\.cluster_means \(got no means\); speech\.mode",
        ),
        ({"units": 1.0}, {"settings": TermSettings(unit_layers=(4,))}, r"layer does not exist: speech\.unit_layers"),
        ({"units": 1.0}, {"settings": TermSettings(unit_layers=(1, 1))}, "a layer is named twice"),
        ({"cluster_means": 1.0}, {"settings": TermSettings(layer_clusters=9)}, "no such number of clusters"),
    ],
)
def test_a_term_without_what_it_needs_is_refused(
    weights: dict[str, float], more: dict[str, Any], words: str, make_encoder: Make
) -> None:
    with pytest.raises(ConfigError, match=words):
        make(make_encoder(0), make_encoder(1), weights, **more)


def test_units_need_audio_and_enough_of_it(make_encoder: Make) -> None:
    with pytest.raises(ConfigError, match="there is no audio to find units"):
        make(make_encoder(0), make_encoder(1), {"units": 1.0}, survey=None)(torch.randn(1, 900))
    few = make(make_encoder(0), make_encoder(1), {"units": 1.0}, survey=lambda: [torch.randn(1, 300)])
    with pytest.raises(DataError, match="too few frames for the units"):
        few(torch.randn(1, 900))
