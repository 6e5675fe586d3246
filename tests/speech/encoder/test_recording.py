"""Attention maps and relations of values against loops over weights."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from l0prune_speech.encoder import head_shares, record
from l0prune_speech.encoder.modules import SpeechEncoder, WavLMAttention

Make = Callable[..., SpeechEncoder]
LAYOUTS = {
    "base": {},
    "large": {"extractor_mode": "layer_norm", "extractor_conv_bias": True, "encoder_layer_norm_first": True},
    "wavlm": {"encoder_num_buckets": 8, "encoder_max_distance": 20},
}


def softmax(row: np.ndarray) -> np.ndarray:
    powers = np.exp(row - row.max())
    return powers / powers.sum()


def plain(attention: Any, x: np.ndarray, bias: np.ndarray | None, which: str) -> np.ndarray:
    """(T, D) -> (T, T), head by head and frame by frame."""

    def projected(name: str) -> np.ndarray:
        linear = getattr(attention, f"{name}_proj")
        return x @ linear.weight.detach().double().numpy().T + linear.bias.detach().double().numpy()

    first, second = ("q", "k") if which == "maps" else ("v", "v")
    one, other, width = projected(first), projected(second), attention.head_dim
    weight = attention.out_proj.weight.detach().double().numpy()
    sizes = [np.sqrt(np.square(weight[:, h * width : (h + 1) * width]).sum()) for h in range(attention.num_heads)]
    total = np.zeros((len(x), len(x)))
    for h, size in enumerate(sizes):
        part = slice(h * width, (h + 1) * width)
        for query in range(len(x)):
            scores = np.array([one[query, part] @ row / math.sqrt(width) for row in other[:, part]])
            if bias is not None and which == "maps":
                scores = scores + bias[h, query]
            total[query] += size / sum(sizes) * softmax(scores)
    return total


@pytest.mark.parametrize("which", ["maps", "values"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_relations_are_those_of_the_weights(layout: str, which: str, make_encoder: Make) -> None:
    encoder = make_encoder(0, **LAYOUTS[layout]).double()
    layer: Any = encoder.encoder.transformer.layers[1]  # type: ignore[union-attr, index]
    seen: dict[str, Any] = {}
    layer.attention.register_forward_pre_hook(lambda _m, args, named: seen.update(named, x=args[0]), with_kwargs=True)
    with torch.no_grad():
        heard = record(encoder, torch.randn(2, 600, dtype=torch.float64), **{which: [2]})
        for clip in range(2):
            bias = None
            if isinstance(layer.attention, WavLMAttention):
                gate = layer.attention.gate(seen["x"])[clip].numpy()
                bias = gate * seen["position_bias"][0].numpy()
            expected = plain(layer.attention, seen["x"][clip].numpy(), bias, which)
            np.testing.assert_allclose(getattr(heard, which)[2][clip].numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_states_are_untouched_and_nothing_stays_behind(layout: str, make_encoder: Make) -> None:
    encoder, waveforms = make_encoder(0, **LAYOUTS[layout]), torch.randn(2, 600)
    states = encoder.hidden_states(waveforms)
    heard = record(encoder, waveforms, maps=[1, 3], values=[2])
    assert (sorted(heard.maps), sorted(heard.values)) == ([1, 3], [2])
    for one, other in zip(heard.states, states, strict=True):
        assert torch.equal(one, other)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in encoder.modules())


def test_padding_is_no_key_and_changes_no_valid_frame(make_encoder: Make) -> None:
    """With layer norms in the convolutions: group norms average over padding, too."""
    encoder, waveforms, lengths = make_encoder(0, **LAYOUTS["large"]), torch.randn(2, 900), torch.tensor([900, 500])
    waveforms[1, 500:] = 0
    heard = record(encoder, waveforms, lengths=lengths, maps=[2], values=[2])
    alone = record(encoder, waveforms[1:, :500], maps=[2], values=[2])
    valid = alone.states[0].shape[1]
    for both, one in ((heard.maps, alone.maps), (heard.values, alone.values)):
        torch.testing.assert_close(both[2][1:, :valid, :valid], one[2], rtol=1e-4, atol=1e-5)
        assert not both[2][1, :valid, valid:].any()
        torch.testing.assert_close(both[2].sum(-1), torch.ones(both[2].shape[:2]))


def test_hidden_frames_say_nothing(make_encoder: Make) -> None:
    encoder, waveforms = make_encoder(0), torch.randn(1, 900)
    frames = encoder.hidden_states(waveforms)[0].shape[1]
    hidden = torch.zeros(1, frames, dtype=torch.bool)
    hidden[0, 20:25] = True
    instead = torch.full((8,), 0.5, requires_grad=True)
    heard = record(encoder, waveforms, hidden=(hidden, instead))
    assert torch.equal(heard.states[0][hidden], instead.detach().expand(5, 8))
    assert torch.equal(heard.states[0][~hidden], encoder.hidden_states(waveforms)[0][~hidden])
    heard.states[-1].sum().backward()
    assert instead.grad is not None
    assert instead.grad.abs().sum() > 0


def test_shares_of_heads_follow_their_output_and_a_closed_head_has_none(make_encoder: Make) -> None:
    attention: Any = make_encoder(0).encoder.transformer.layers[0].attention  # type: ignore[union-attr, index]
    assert head_shares(attention).sum().item() == pytest.approx(1)
    with torch.no_grad():
        attention.out_proj.weight[:, :4] = 0
    assert head_shares(attention).tolist() == [0, 1]
    with torch.no_grad():
        attention.out_proj.weight[:] = 0
    assert head_shares(attention).tolist() == [0, 0]
