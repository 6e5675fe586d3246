"""What was gated is what you get: over scaled-down layouts of all families, random widths and gate patterns."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from l0prune_speech.encoder.groups import encoder_groups
from l0prune_speech.encoder.modules import SpeechEncoder, build_encoder
from l0prune_speech.units import UNITS
from torch import Tensor

from l0prune import GatedModel
from l0prune.proof.exactness import relative_difference
from l0prune.size.parameters import parameter_size


@st.composite
def encoder_configs(draw: st.DrawFn) -> dict[str, object]:
    layout = draw(st.sampled_from(["group_norm", "layer_norm"]))
    heads = draw(st.integers(1, 4))
    width = heads * draw(st.sampled_from([2, 4])) * 2
    kernels = [(10, 5), (3, 2), (2, 2)][: draw(st.integers(1, 3))]
    wavlm = {"encoder_num_buckets": draw(st.sampled_from([8, 32])), "encoder_max_distance": 40}
    return {
        **(wavlm if draw(st.booleans()) else {}),
        "extractor_mode": layout,
        "extractor_conv_layer_config": [(draw(st.integers(1, 9)), *kernel) for kernel in kernels],
        "extractor_conv_bias": draw(st.booleans()),
        "encoder_embed_dim": width,
        "encoder_projection_dropout": 0.1,
        "encoder_pos_conv_kernel": 4,
        "encoder_pos_conv_groups": 2,
        "encoder_num_layers": draw(st.integers(1, 3)),
        "encoder_num_heads": heads,
        "encoder_attention_dropout": 0.1,
        "encoder_ff_interm_features": draw(st.integers(1, 17)),
        "encoder_ff_interm_dropout": 0.1,
        "encoder_dropout": 0.1,
        "encoder_layer_norm_first": draw(st.booleans()),
        "encoder_layer_drop": 0.0,
        "aux_num_out": None,
        "normalize_waveform": draw(st.booleans()),
        "extractor_channel_scale": draw(st.booleans()),
    }


def make_encoder(config: dict[str, object], seed: int, dtype: torch.dtype) -> SpeechEncoder:
    torch.manual_seed(seed)
    encoder = build_encoder(config).to(dtype).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4 + 0.1)
        if config.get("extractor_channel_scale"):
            encoder.feature_extractor.dummy_weight.uniform_(0.5, 1.5)  # type: ignore[union-attr, operator]
    return encoder


def make_pattern(gated: GatedModel, seed: int) -> Tensor:
    """Random gate values; some groups wide open, some emptied where they may be."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for group in gated.groups:
        values = 0.1 + 0.9 * torch.rand(group.units, generator=generator)
        values[torch.rand(group.units, generator=generator) < torch.rand((), generator=generator)] = 0
        if group.bypass and torch.rand((), generator=generator) < 0.3:
            values.zero_()
        if not group.bypass and not values.any():
            values[0] = 0.5
        parts.append(values)
    return torch.cat(parts)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@settings(max_examples=40, deadline=None)
@given(config=encoder_configs(), seed=st.integers(0, 2**31), units=st.sets(st.sampled_from([*UNITS]), min_size=1))
def test_gated_equals_pruned(
    dtype: torch.dtype, tolerance: float, config: dict[str, object], seed: int, units: set[str]
) -> None:
    encoder = make_encoder(config, seed, dtype)
    gated = GatedModel(encoder, encoder_groups(encoder, sorted(units)), target_sparsity=1e-15).eval()
    waveforms = torch.randn(2, 900, dtype=dtype)
    lengths = torch.tensor([900, 600])
    with torch.no_grad(), gated.gates.fixed(make_pattern(gated, seed)):
        expected = encoder.hidden_states(waveforms), encoder.extract_features(waveforms, lengths)
        pruned, plan = gated.pruned()
        assert isinstance(pruned, SpeechEncoder)
        got = pruned.hidden_states(waveforms), pruned.extract_features(waveforms, lengths)
    counts = np.array([len(plan.kept[group.name]) for group in gated.groups])
    assert gated.size_model.exact(counts) == sum(parameter.numel() for parameter in pruned.parameters())
    assert relative_difference(expected, got) <= tolerance


@settings(max_examples=10, deadline=None)
@given(config=encoder_configs(), seed=st.integers(0, 2**31))
def test_expected_size_is_the_mean_of_sampled_sizes(config: dict[str, object], seed: int) -> None:
    encoder = make_encoder(config, seed, torch.float32)
    size = parameter_size(encoder, encoder_groups(encoder, UNITS))
    generator = np.random.default_rng(seed)
    probabilities = generator.uniform(0.05, 0.95, size.units.sum())
    ends = np.cumsum(size.units)[:-1]
    patterns = generator.uniform(size=(1500, len(probabilities))) < probabilities
    sizes = [size.exact(np.array([part.sum() for part in np.split(pattern, ends)])) for pattern in patterns]
    error = 4 * np.std(sizes) / np.sqrt(len(sizes))
    assert abs(np.mean(sizes) - size.expected(torch.from_numpy(probabilities)).item()) <= error


@pytest.mark.parametrize(
    "family", [{}, {"encoder_num_buckets": 8, "encoder_max_distance": 20}], ids=["hubert", "wavlm"]
)
@pytest.mark.parametrize("layout", ["group_norm", "layer_norm"])
def test_gradient_of_the_gates_agrees_with_finite_differences(
    encoder_config: dict[str, object], layout: str, family: dict[str, int]
) -> None:
    config = {
        **encoder_config,
        **family,
        "extractor_mode": layout,
        "extractor_conv_bias": layout == "layer_norm",
        "encoder_layer_norm_first": layout == "layer_norm",
    }
    encoder = make_encoder(config, 0, torch.float64)
    gated = GatedModel(encoder, encoder_groups(encoder, UNITS), target_sparsity=0.3).eval()
    units = int(gated.size_model.units.sum())
    uniform, waveforms = torch.linspace(0.35, 0.65, units, dtype=torch.float64), torch.randn(1, 200).double()

    def loss(log_alpha: Tensor) -> Tensor:
        distribution = gated.gates.distribution
        with gated.gates.fixed(distribution.transform(log_alpha, uniform)):
            state = encoder.hidden_states(waveforms)[-1]
        return state.pow(2).mean() + gated.size_model.expected(distribution.keep_probability(log_alpha)) / 1000

    start = torch.linspace(-0.1, 0.1, units, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, start)
