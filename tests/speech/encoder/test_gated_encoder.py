"""A gated encoder from training to removal: the deterministic choice, detaching, precision."""

import copy
from collections.abc import Callable

import pytest
import torch
from l0prune_speech.encoder.groups import encoder_groups
from l0prune_speech.encoder.modules import SpeechEncoder
from l0prune_speech.units import UNITS
from torch import Tensor

from l0prune import Bypassed, GateConfig, GatedModel, prove_groups
from l0prune.groups import Norm, PruneGroup
from l0prune.proof.exactness import relative_difference
from l0prune.proof.trials import find_faults

Make = Callable[..., SpeechEncoder]
LARGE = {
    "extractor_mode": "layer_norm",
    "extractor_conv_bias": True,
    "encoder_layer_norm_first": True,
    "normalize_waveform": True,
}
LAYOUTS = [{}, LARGE]
IDS = ["base", "large"]


def make_random(make_encoder: Make, layout: dict) -> SpeechEncoder:
    encoder = make_encoder(0, **layout)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4 + 0.1)
    return encoder


def make_gated(make_encoder: Make, layout: dict, target: float = 0.5, **config: object) -> GatedModel:
    encoder = make_random(make_encoder, layout)
    return GatedModel(encoder, encoder_groups(encoder, UNITS), target_sparsity=target, config=GateConfig(**config))  # type: ignore[arg-type]


@pytest.fixture
def waveforms() -> Tensor:
    return torch.randn(2, 900)


@pytest.mark.parametrize("layout", LAYOUTS, ids=IDS)
def test_evaluation_outputs_are_those_of_the_pruned_encoder(
    make_encoder: Make, layout: dict, waveforms: Tensor
) -> None:
    lengths, emptied = torch.tensor([900, 500]), 0
    for seed, target in enumerate((0.1, 0.3, 0.5, 0.7, 0.2, 0.4, 0.6)):
        gated = make_gated(make_encoder, layout, target).train()
        with torch.no_grad():
            gated.gates.log_alpha.copy_(3 * torch.randn(len(gated.gates.log_alpha)))
        gated.gates.sample()
        gated.model.hidden_states(waveforms)  # a sample must not outlive training
        gated.eval()
        with torch.no_grad():
            pruned, plan = gated.pruned()
            for inputs in ((waveforms,), (waveforms, lengths)):
                expected = gated.model.extract_features(*inputs), gated(*inputs)
                assert relative_difference(expected, (pruned.extract_features(*inputs), pruned(*inputs))) < 1e-5, seed
        assert sum(parameter.numel() for parameter in pruned.parameters()) <= gated.gates.budget
        assert plan.to_json() == gated.plan().to_json()
        emptied += sum(isinstance(module, Bypassed) for module in pruned.modules())
    assert emptied > 0


@pytest.mark.parametrize("layout", LAYOUTS, ids=IDS)
def test_detaching_gives_back_the_dense_encoder_bit_for_bit(
    make_encoder: Make, layout: dict, waveforms: Tensor
) -> None:
    gated = make_gated(make_encoder, layout)
    dense = copy.deepcopy(gated).detach().eval()
    with torch.no_grad():
        expected = dense.extract_features(waveforms)[0]
        gated.train()(waveforms)
        gated.eval()(waveforms)
        gated.pruned()
        gated.train()
        plain = gated.detach().eval()
        got = plain.extract_features(waveforms)[0]
    assert {name: tensor.shape for name, tensor in plain.state_dict().items()} == {
        name: tensor.shape for name, tensor in make_encoder(0, **layout).state_dict().items()
    }
    assert all(torch.equal(tensor, dense.state_dict()[name]) for name, tensor in plain.state_dict().items())
    assert all(torch.equal(one, other) for one, other in zip(expected, got, strict=True))
    kinds, never_gated = ([type(m).__name__ for m in model.modules()] for model in (plain, make_encoder(0, **layout)))
    assert kinds == never_gated


@pytest.mark.parametrize("layout", LAYOUTS, ids=IDS)
def test_trains_under_autocast(make_encoder: Make, layout: dict, waveforms: Tensor) -> None:
    gated = make_gated(make_encoder, layout, drop_rate=0.4).train()
    with torch.autocast("cpu", torch.bfloat16):
        states = gated.model.hidden_states(waveforms)
        torch.stack([state.float().pow(2).mean() for state in states]).sum().backward()
    assert gated.gates.log_alpha.grad is not None
    assert all(torch.isfinite(p.grad).all() for p in gated.parameters() if p.grad is not None)
    assert gated.gates.log_alpha.grad.abs().max() > 0


@pytest.mark.parametrize("layout", LAYOUTS, ids=IDS)
def test_groups_are_proved(make_encoder: Make, layout: dict, waveforms: Tensor) -> None:
    gated = make_gated(make_encoder, layout).eval()
    assert prove_groups(gated, lambda model: model.extract_features(waveforms)[0]) < 1e-5


def without_norm(group: PruneGroup, module: str) -> None:
    object.__setattr__(group, "norms", tuple(norm for norm in group.norms if norm.module != module))


def without_switch(group: PruneGroup, module: str) -> None:
    object.__setattr__(group, "alive_with", ())


def without_place(group: PruneGroup, module: str) -> None:
    object.__setattr__(group, "places", tuple(p for p in group.places if p.tensor != f"{module}.bias"))


LAYER = "encoder.transformer.layers.1"


@pytest.mark.parametrize(
    ("spoil", "name", "module"),
    [
        (without_norm, "feature_extractor.conv_layers.0.conv", "feature_extractor.conv_layers.0.layer_norm"),
        (without_norm, "feature_extractor.conv_layers.1.conv", "encoder.feature_projection.layer_norm"),
        (without_switch, f"{LAYER}.attention.heads", ""),
        (without_switch, f"{LAYER}.feed_forward.units", ""),
        (without_place, f"{LAYER}.attention.heads", f"{LAYER}.attention.k_proj"),
        (without_place, f"{LAYER}.feed_forward.units", f"{LAYER}.feed_forward.intermediate_dense"),
        (without_place, f"{LAYER}.feed_forward", f"{LAYER}.feed_forward.intermediate_dense"),
    ],
)
def test_a_spoiled_group_is_found_and_alone_blamed(
    make_encoder: Make, waveforms: Tensor, spoil: Callable[[PruneGroup, str], None], name: str, module: str
) -> None:
    encoder = make_random(make_encoder, LARGE)
    groups = encoder_groups(encoder, UNITS)
    spoil(next(group for group in groups if group.name == name), module)
    gated = GatedModel(encoder, groups, target_sparsity=0.5).eval()
    _, faults = find_faults(gated, lambda model: model.extract_features(waveforms)[0])
    assert set(faults) == {name}


def test_gates_that_fail_with_every_unit_open_put_the_blame_on_no_right_group(
    make_encoder: Make, waveforms: Tensor
) -> None:
    encoder = make_random(make_encoder, LARGE)
    groups = encoder_groups(encoder, UNITS)
    group = next(group for group in groups if group.name == "feature_extractor.conv_layers.1.conv")
    norm = Norm(module="encoder.feature_projection.layer_norm", channel_dim=1)  # frames, not channels
    object.__setattr__(group, "norms", (norm,))
    gated = GatedModel(encoder, groups, target_sparsity=0.5).eval()
    _, faults = find_faults(gated, lambda model: model.extract_features(waveforms)[0])
    assert set(faults) == {"all groups together"}


@pytest.mark.parametrize("layout", LAYOUTS, ids=IDS)
def test_hidden_states_are_torchaudios_after_layer_0(make_encoder: Make, layout: dict, waveforms: Tensor) -> None:
    encoder = make_encoder(0, **layout)
    with torch.no_grad():
        states = encoder.hidden_states(waveforms)
        features, _ = encoder.extract_features(waveforms)
        assert all(torch.equal(one, other) for one, other in zip(states[1:], features, strict=True))
        assert len(encoder.hidden_states(waveforms, 2)) == 3
        projected = encoder.encoder.feature_projection(encoder.feature_extractor(encoder.normalize(waveforms), None)[0])
        assert torch.equal(states[0], projected)
