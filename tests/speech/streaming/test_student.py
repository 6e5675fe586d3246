"""Dense encoders become ones that hear chunks: what takes the place of statistics of whole clips, what is refused."""

import pytest
import torch
from chunked_encoders import dense_encoder, small_streaming
from l0prune_speech.encoder import ChannelAffine, encoder_groups
from l0prune_speech.streaming import hears_whole_clips, streaming_encoder
from torch import nn

from l0prune import ConfigError, DataError, GatedModel, relative_difference


def test_factors_begin_as_the_group_norm_on_the_training_data() -> None:
    """On a clip like those that they come from, both give nearly the same channels."""
    dense = dense_encoder("base")
    audio = 0.1 * torch.randn(4, 16_000, generator=torch.Generator().manual_seed(0))
    encoder = streaming_encoder(dense, chunk_ms=60, left_ms=0, right_ms=0, audio=[audio])
    block, other = (one.feature_extractor.conv_layers[0] for one in (dense, encoder))  # type: ignore[union-attr, index]
    assert isinstance(block.layer_norm, nn.GroupNorm)
    assert isinstance(other.layer_norm, ChannelAffine)
    with torch.no_grad():
        expected = block(audio[:, None], None)[0]
        found = other(encoder.normalize(audio)[:, None], None)[0]
    assert float((found - expected).abs().mean() / expected.abs().mean()) < 0.05


def test_what_hears_frames_alone_stays_as_it_is() -> None:
    dense = dense_encoder("large", normalize_waveform=False)
    assert not hears_whole_clips(dense)
    encoder = streaming_encoder(dense, chunk_ms=60, left_ms=0, right_ms=0)
    assert encoder.level is None
    assert encoder.config["streaming"] == {"chunk_frames": 3, "left_frames": 0, "right_frames": 0}


@pytest.mark.parametrize("kind", ["base", "wavlm"])
def test_gated_equals_pruned(kind: str) -> None:
    encoder = small_streaming(kind)
    gated = GatedModel(encoder, encoder_groups(encoder), target_sparsity=0.3).eval()
    with torch.no_grad():
        gated.gates.log_alpha.normal_(0, 2)
        audio = 0.1 * torch.randn(2, 6000)
        expected = gated.model.hidden_states(audio)  # type: ignore[operator, union-attr]
        found = gated.pruned()[0].hidden_states(audio)  # type: ignore[operator]
    assert relative_difference(list(expected), list(found)) <= 1e-5


@pytest.mark.parametrize(
    ("lengths", "words"),
    [
        ((10, 0, 0), r"speech.streaming.chunk_ms.*got 10.*multiple of 20.*20"),
        ((330, 0, 0), r"not a whole number of frames: speech.streaming.chunk_ms.*got 330.*320 or 340"),
        ((320, 330, 0), r"speech.streaming.left_ms.*got 330.*320 or 340"),
        ((320, 0, 5), r"speech.streaming.right_ms.*got 5.*0 or 20"),
    ],
)
def test_lengths_that_are_no_frames_are_refused(lengths: tuple[float, ...], words: str) -> None:
    chunk, left, right = lengths
    with pytest.raises(ConfigError, match=words):
        streaming_encoder(dense_encoder("base"), chunk_ms=chunk, left_ms=left, right_ms=right)


def test_refused() -> None:
    with pytest.raises(ConfigError, match=r"the network streams already.*the student keeps what its teacher has"):
        streaming_encoder(small_streaming("base"), chunk_ms=60, left_ms=0, right_ms=0)
    with pytest.raises(DataError, match="there is no audio to know its level from"):
        streaming_encoder(dense_encoder("base"), chunk_ms=60, left_ms=0, right_ms=0)
    gaps = dense_encoder("base", extractor_conv_layer_config=[(6, 5, 10), (6, 2, 2)])
    with pytest.raises(ConfigError, match="a network whose frames do not overlap cannot stream"):
        streaming_encoder(gaps, chunk_ms=60, left_ms=0, right_ms=0)
