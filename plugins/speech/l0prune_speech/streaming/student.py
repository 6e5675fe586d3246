"""An encoder that hears chunks, made of one that hears whole clips.

Two things of the dense encoder look at a whole clip before its first frame: a group norm after the first convolution
(HuBERT Base), and normalised waveforms (the large ones). A stream cannot know them. So audio is normalised by what was
heard so far, and the group norm becomes a factor and a shift for each channel, which begin as the norm's own on the
training data and are trained like other weights.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from l0prune import ConfigError, DataError
from l0prune_speech.data import Framing
from l0prune_speech.encoder import RunningLevel, SpeechEncoder, build_encoder, slim_config
from l0prune_speech.streaming.layout import whole_frames

_FIRST = "feature_extractor.conv_layers.0"


def streaming_encoder(
    encoder: SpeechEncoder, *, chunk_ms: float, left_ms: float, right_ms: float, audio: Iterable[Tensor] = ()
) -> SpeechEncoder:
    """A copy of an encoder that sees chunks.

    Args:
        encoder: Dense or pruned.
        chunk_ms: Length of a chunk.
        left_ms: What its frames attend to before it.
        right_ms: What its frames attend to, and the positional convolution reads, after it.
        audio: Batches (B, samples) of training data, an end to them, for encoders that hear whole clips to normalise
            them.

    Returns:
        The copy, on the same device, in evaluation mode.

    Raises:
        ConfigError: A length is no whole number of frames, or the encoder cannot stream.
        DataError: There is no audio where some is needed.
    """
    if encoder.config.get("streaming") is not None:
        hint = "leave out speech.streaming: the student keeps what its teacher has"
        raise ConfigError("the network streams already", where="speech.streaming", hint=hint)
    config, state = slim_config(encoder), dict(encoder.state_dict())
    framing = Framing.of_convolutions(config["extractor_conv_layer_config"])
    if framing.shortest_samples <= framing.step_samples:
        got = f"kernels of {framing.shortest_samples} samples, strides of {framing.step_samples}"
        raise ConfigError("a network whose frames do not overlap cannot stream", where="speech.streaming", got=got)
    lengths = {"chunk": chunk_ms, "left": left_ms, "right": right_ms}
    streaming: dict[str, Any] = {
        f"{name}_frames": whole_frames(ms, framing, f"speech.streaming.{name}_ms") for name, ms in lengths.items()
    }
    norm: Any = encoder.get_submodule(_FIRST).layer_norm
    if hears_whole_clips(encoder):
        batches = [batch.to(next(encoder.parameters()).device) for batch in audio]
        if not batches:
            raise DataError("there is no audio to know its level from", where="speech.streaming")
        streaming["variance"] = float(torch.cat([batch.var(1, unbiased=False) for batch in batches]).mean())
        if isinstance(norm, nn.GroupNorm):
            mean, variance = _statistics(encoder, RunningLevel(streaming["variance"]), batches)
            weight = norm.weight.detach() * torch.rsqrt(variance + norm.eps)
            state[f"{_FIRST}.layer_norm.weight"] = weight
            state[f"{_FIRST}.layer_norm.bias"] = norm.bias.detach() - mean * weight
    copy = build_encoder({**config, "streaming": streaming}).to(next(encoder.parameters()).device)
    copy.load_state_dict(state)
    return copy.eval()


def hears_whole_clips(encoder: SpeechEncoder) -> bool:
    """Whether an encoder normalises clips before their first frame is known."""
    norm = encoder.get_submodule(_FIRST).layer_norm
    return encoder.normalize_waveform or isinstance(norm, nn.GroupNorm)


@torch.no_grad()
def _statistics(encoder: SpeechEncoder, level: RunningLevel, batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,) of the first convolution's channels within a clip, averaged over clips."""
    convolution: Any = encoder.get_submodule(_FIRST).conv
    found = []
    for batch in batches:
        channels = convolution(level(batch)[0][:, None])
        found.append(torch.stack([channels.mean(-1), channels.var(-1, unbiased=False)], 1))
    mean, variance = torch.cat(found).mean(0)
    return mean, variance
