"""Hidden states of a frozen model, extracted once. Legend: S hidden states, T frames, D width."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from l0prune import DataError
from l0prune_speech.data import SAMPLE_RATE, Framing
from l0prune_speech.encoder import SpeechEncoder
from l0prune_speech.formats import from_encoder, load_teacher
from l0prune_speech.probes.labelled import Segment

RANDOM = "random:"
_BANDS = 80


class Frontend(Protocol):
    """What turns audio into hidden states."""

    parameters: int
    framing: Framing

    def __call__(self, waveform: Tensor) -> Tensor:
        """Samples at 16 kHz, (samples,) -> (S, T, D)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Features:
    """Hidden states of many clips, by the names of their segments."""

    means: Mapping[str, Tensor]
    """Over time, (S, D) of each clip, float32."""
    frames: Mapping[str, Tensor]
    """(S, T, D) of each clip for which they were asked, in half precision where that holds them."""

    def only(self, segments: Iterable[Segment]) -> "Features":
        """The frames of some clips, and no more."""
        return Features(means={}, frames={segment.name: self.frames[segment.name] for segment in segments})


class EncoderFrontend:
    """Hidden states 0 to L of a speech encoder, clip by clip: in a batch, padding would change those of some families.

    Args:
        encoder: In evaluation mode.
        device: Where it runs.
    """

    def __init__(self, encoder: SpeechEncoder, device: torch.device) -> None:
        self.encoder = encoder.eval().requires_grad_(False).to(device)
        self.device = device
        self.parameters = sum(parameter.numel() for parameter in encoder.parameters())
        self.framing = Framing.of_convolutions(encoder.config["extractor_conv_layer_config"])

    @torch.inference_mode()
    def __call__(self, waveform: Tensor) -> Tensor:
        """Samples at 16 kHz, (samples,) -> (S, T, D)."""
        return torch.cat(self.encoder.hidden_states(waveform[None].to(self.device)))


@dataclass(frozen=True, kw_only=True)
class FilterbankFrontend:
    """The classic yardstick: 80 log-mel bands and their first and second differences, 100 frames a second."""

    normalised: bool
    """Bring every channel of a clip to mean 0 and deviation 1, as s3prl's `fbank` does, the one in SUPERB's tables.

    Then nothing of a clip is left in its mean over time, and probes of whole clips are at chance.
    """
    parameters = 0
    framing = Framing(shortest_samples=400, step_samples=160)

    def __call__(self, waveform: Tensor) -> Tensor:
        """Samples at 16 kHz, (samples,) -> (1, T, 240)."""
        import torchaudio

        bands = torchaudio.compliance.kaldi.fbank(waveform[None] * 2**15, num_mel_bins=_BANDS, dither=0.0).T
        first = torchaudio.functional.compute_deltas(bands)
        states = torch.cat([bands, first, torchaudio.functional.compute_deltas(first)]).T[None]
        if self.normalised:
            # A single frame has no deviation: without the correction it is 0 instead of not a number.
            states = (states - states.mean(1, keepdim=True)) / (states.std(1, correction=0, keepdim=True) + 1e-5)
        return states


FILTERBANKS = {
    "filterbanks": FilterbankFrontend(normalised=False),
    "filterbanks:cmvn": FilterbankFrontend(normalised=True),
}
"""By the names that `open_frontend` takes."""


def open_frontend(model: str, device: torch.device) -> Frontend:
    """What a model's name stands for.

    Args:
        model: What `--teacher` takes, one of `FILTERBANKS`, or "random:" and what `--teacher` takes.
        device: Where encoders run.

    Raises:
        L0PruneError: There is no such model.
    """
    if model in FILTERBANKS:
        return FILTERBANKS[model]
    if not model.startswith(RANDOM):
        return EncoderFrontend(load_teacher(model, also=FILTERBANKS).encoder, device)
    encoder = load_teacher(model.removeprefix(RANDOM)).encoder
    return EncoderFrontend(with_random_weights(encoder), device)


def with_random_weights(encoder: SpeechEncoder) -> SpeechEncoder:
    """The same architecture as torch and torchaudio begin its training, from a fixed seed."""
    from l0prune_speech.encoder import build_encoder

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_encoder(from_encoder(encoder).config).eval()


def check_lengths(framing: Framing, segments: Iterable[Segment]) -> None:
    """Raise a `DataError` where a clip is too short for a frame."""
    for segment in segments:
        if segment.samples < framing.shortest_samples:
            got = f"{segment.samples / SAMPLE_RATE:g} s"
            expected = f"{framing.shortest_samples / SAMPLE_RATE} s or more"
            raise DataError("clip is too short for the model", where=segment.name, got=got, expected=expected)


def extract(frontend: Frontend, segments: Iterable[Segment], *, with_frames: Container[str]) -> Features:
    """Hidden states of clips.

    Args:
        frontend: Makes them.
        segments: What to hear, each long enough for a frame; a clip named twice is heard once.
        with_frames: Names of the segments whose frames are kept, beside their means.

    Raises:
        DataError: A clip cannot be decoded, or gives states that are not finite.
    """
    wanted = {segment.name: segment for segment in segments}
    means, frames = {}, {}
    for name in sorted(wanted):
        states = frontend(wanted[name].read()).float().cpu()
        if not states.isfinite().all():
            raise DataError("hidden states are not finite", where=name)
        means[name] = states.mean(1)
        if name in with_frames:
            frames[name] = _halved(states)
    return Features(means=means, frames=frames)


def _halved(states: Tensor) -> Tensor:
    """In half precision, where its range holds them."""
    half = states.half()
    return half if half.isfinite().all() else states
