"""Chunk by chunk equals the masked pass over whole clips, for every chunk and however the audio is cut."""

from pathlib import Path

import pytest
import torch
from chunked_encoders import dense_encoder, small_streaming
from hypothesis import given, settings
from hypothesis import strategies as st
from l0prune_speech.deploy import for_inference
from l0prune_speech.encoder import SpeechEncoder, encoder_groups
from l0prune_speech.streaming import Stream, StreamStep, streaming, streaming_encoder
from opened_alone import opened_alone
from torch import Tensor

from l0prune import ConfigError, DataError, relative_difference
from l0prune.size.latency import clocks

KINDS = ["base", "large", "wavlm", "pruned wavlm-large"]
FRAME = 20
audio_cuts = st.lists(st.integers(0, 4000), min_size=1, max_size=6).filter(lambda cuts: sum(cuts) >= 400)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def whole(encoder: SpeechEncoder, audio: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.stack(encoder.hidden_states(audio))


def in_pieces(stream: Stream, audio: Tensor, cuts: list[int]) -> Tensor:
    return torch.cat([*(stream(piece) for piece in audio.split(cuts, -1)), stream.flush()], -2)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8)
@given(chunk=st.integers(1, 9), left=st.integers(0, 12), right=st.integers(0, 5), cuts=audio_cuts)
def test_chunk_by_chunk_is_the_masked_pass(kind: str, chunk: int, left: int, right: int, cuts: list[int]) -> None:
    encoder = small_streaming(kind, FRAME * chunk, FRAME * left, FRAME * right)
    audio = noise(2, sum(cuts))
    found = in_pieces(streaming(encoder, batch=2, every_layer=True), audio, cuts)
    expected = whole(encoder, audio)
    assert found.shape == expected.shape
    assert relative_difference([expected], [found]) <= 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_state_is_that_of_forward_and_a_stream_begins_anew(kind: str) -> None:
    encoder = small_streaming(kind)
    stream = streaming(encoder)
    for seed in range(2):
        audio = noise(1, 7000, seed=seed)
        with torch.no_grad():
            expected = encoder(audio)[0]
        assert relative_difference([expected], [in_pieces(stream, audio[0], [2500, 4500])]) <= 1e-5


@settings(max_examples=8)
@given(chunk=st.integers(1, 6), left=st.integers(0, 6), right=st.integers(0, 4), frame=st.integers(0, 30))
def test_a_frame_hears_nothing_beyond_its_chunk_and_right_context(
    chunk: int, left: int, right: int, frame: int
) -> None:
    """However many layers there are; and the frames before the left context of a layer are heard through others."""
    encoder = small_streaming("wavlm", FRAME * chunk, FRAME * left, FRAME * right)
    audio = noise(1, 320 * 32)
    last = (frame // chunk + 1) * chunk + right - 1
    heard = 320 * last + 400
    other = torch.cat([audio[:, :heard], noise(1, audio.shape[1], seed=5)], 1)[:, : audio.shape[1]]
    one, two = whole(encoder, audio), whole(encoder, other)
    torch.testing.assert_close(one[:, :, : frame + 1], two[:, :, : frame + 1], rtol=0, atol=1e-5)
    if heard < audio.shape[1] - 400:
        assert not torch.allclose(one, two, atol=1e-3)


def test_a_long_left_context_and_chunk_hear_what_the_dense_network_hears() -> None:
    """With one chunk longer than the clip, nothing but the norm of the level differs."""
    changes = {"extractor_mode": "layer_norm", "normalize_waveform": False}
    dense = dense_encoder("wavlm", **changes)
    encoder = streaming_encoder(dense, chunk_ms=2000, left_ms=0, right_ms=0)
    audio = noise(2, 9000)
    assert relative_difference([whole(dense, audio)], [whole(encoder, audio)]) <= 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind: str) -> None:
    encoder, lengths = small_streaming(kind), torch.tensor([9000, 5000])
    audio = noise(2, 9000)
    audio[1, 5000:] = 0
    with torch.no_grad():
        padded = encoder.hidden_states(audio, None, lengths)
    expected = whole(encoder, audio[1:, :5000])
    assert relative_difference([expected], [torch.stack(padded)[:, 1:, : expected.shape[2]]]) <= 1e-5


def test_the_level_of_a_long_clip_becomes_that_of_the_dense_network() -> None:
    """After a minute what was heard so far says nearly what the whole clip says."""
    level, audio = small_streaming("base").level, 3.0 * noise(1, 16_000 * 60) + 0.1
    found = level(audio)[0]
    expected = torch.nn.functional.layer_norm(audio, audio.shape[-1:])
    assert float((found - expected)[:, -16_000:].abs().max()) < 0.1
    assert float(found[:, :16_000].std()) > 1.2


def test_nothing_comes_before_a_chunk_is_whole() -> None:
    stream = streaming(small_streaming("base", 60, 100, 20))
    assert stream.layout.latency_ms == pytest.approx(85)
    needed = int(16 * stream.layout.latency_ms)
    assert stream(torch.zeros(needed - 1)).shape == (1, 0, 16)
    assert stream(torch.zeros(1)).shape == (1, 3, 16)


@pytest.mark.parametrize("kind", ["base", "pruned wavlm-large"])
def test_blocks_have_the_names_and_the_calls_that_their_time_is_taken_of(kind: str) -> None:
    """Latency is fitted block by block: one that is never called would look free."""
    encoder, parts = small_streaming(kind), dict[str, list[float]]()
    step = StreamStep(encoder)
    blocks = ["feature_extractor", *(bypass.module for group in encoder_groups(encoder) for bypass in group.bypasses)]
    parts.update({block: [] for block in blocks})
    with clocks(step, blocks, parts, torch.device("cpu")), torch.no_grad():
        step(*step.example())
    assert {block: len(times) for block, times in parts.items()} == dict.fromkeys(blocks, 1)


@pytest.mark.parametrize("kind", ["base", "wavlm"])
def test_a_student_opens_where_this_package_is_not(kind: str, tmp_path: Path) -> None:
    encoder, audio = small_streaming(kind), noise(1, 5000)
    with torch.no_grad():
        expected = encoder(audio)[0]
    for states, _ in opened_alone(for_inference(encoder), (audio,), tmp_path):
        assert relative_difference([expected], [states]) <= 1e-5


def test_refused() -> None:
    with pytest.raises(ConfigError, match="not a streaming network: it hears whole clips"):
        StreamStep(dense_encoder("base"))
    stream = streaming(small_streaming("base"))
    stream(torch.zeros(399))
    with pytest.raises(DataError, match=r"shorter than a frame.*got 399 samples.*expected 400 samples or more"):
        stream.flush()
    with pytest.raises(DataError, match=r"audio of a wrong shape.*got \(2, 5\).*expected \(1, samples\)"):
        stream(torch.zeros(2, 5))
    with pytest.raises(DataError, match=r"no floating-point numbers .got int16, expected float32 between -1 and 1"):
        stream(torch.zeros(5, dtype=torch.int16))
