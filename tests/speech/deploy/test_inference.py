"""The form in which an encoder runs gives the outputs of the encoder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from l0prune_speech.deploy.inference import SpectralConvolution, for_inference
from l0prune_speech.formats.checkpoint import folded, from_encoder
from opened_alone import opened_alone
from torch import nn
from torchaudio.models.wav2vec2.components import ConvolutionalPositionalEmbedding

from l0prune import relative_difference


def convolution(width: int, kernel: int, groups: int) -> Any:
    torch.manual_seed(0)
    plain = ConvolutionalPositionalEmbedding(width, kernel, groups)
    nn.utils.parametrize.remove_parametrizations(plain.conv, "weight")
    return plain.requires_grad_(False)


@settings(deadline=None, max_examples=40)
@given(
    kernel=st.integers(1, 12),
    groups=st.sampled_from([1, 2, 4]),
    batch=st.integers(1, 3),
    frames=st.integers(1, 60),
)
def test_the_spectral_convolution_is_the_convolution(kernel: int, groups: int, batch: int, frames: int) -> None:
    plain = convolution(8, kernel, groups)
    x = torch.randn(batch, frames, 8)
    spectral = SpectralConvolution(plain)
    for way in (spectral.by_spectrum, spectral.by_convolution):
        assert relative_difference(plain(x), nn.functional.gelu(way(x))) < 1e-5


@pytest.mark.parametrize("kernel", [4, 128])
def test_an_encoder_gives_the_same_outputs(make_encoder: Callable[..., Any], kernel: int) -> None:
    encoder = make_encoder(encoder_pos_conv_kernel=kernel).requires_grad_(False)
    state, fast = {n: t.clone() for n, t in encoder.state_dict().items()}, for_inference(encoder)
    assert isinstance(fast.encoder.transformer.pos_conv_embed, SpectralConvolution) == (kernel == 128)
    lengths = torch.tensor([8000, 5000])
    for batch, samples in ((1, 400), (2, 8000)):
        waveforms = torch.randn(batch, samples)
        for given_lengths in (None, lengths[:batch].clamp_max(samples)):
            expected, found = encoder(waveforms, given_lengths), fast(waveforms, given_lengths)
            assert relative_difference(expected[0], found[0]) < 1e-5
    # What it was made from is as it was.
    assert all(torch.equal(tensor, state[name]) for name, tensor in encoder.state_dict().items())


def test_it_is_measured_in_half_precision_and_compiled(make_encoder: Callable[..., Any]) -> None:
    encoder = make_encoder(encoder_pos_conv_kernel=128)
    waveforms = torch.randn(1, 8000)
    fast, plain = for_inference(encoder), folded(from_encoder(encoder))
    program = torch.export.export(fast, (waveforms,))
    assert torch.equal(program.module()(waveforms)[0], plain(waveforms)[0])
    fast.to(torch.bfloat16), plain.to(torch.bfloat16)
    expected, found = (network(waveforms.bfloat16())[0] for network in (plain, fast))
    assert found.dtype is torch.bfloat16
    assert relative_difference(expected.float(), found.float()) < 0.05


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"encoder_pos_conv_kernel": 128, "extractor_channel_scale": True, "encoder_ff_interm_features": [12, 0, 5]},
        {"encoder_num_buckets": 8, "encoder_max_distance": 20, "encoder_remaining_heads": [[0, 1], [1], []]},
    ],
)
def test_what_is_saved_opens_where_the_plugin_is_not(
    make_encoder: Callable[..., Any], changes: dict[str, Any], tmp_path: Path
) -> None:
    fast, waveforms = for_inference(make_encoder(**changes)), torch.randn(2, 4000)
    for outputs, nothing in opened_alone(fast, (waveforms,), tmp_path):
        assert nothing is None
        torch.testing.assert_close(outputs, fast(waveforms)[0])
