"""Whisper (arXiv 2212.04356): the encoder alone, with its decoder, or with a head for classes."""

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from l0prune import ConfigError
from l0prune_speech.families.registry import register_family
from l0prune_speech.families.transformers_network import transformers_family

_POSITIONS_PER_SECOND = 50


def _extractor(stated: Mapping[str, Any]) -> Any:
    from transformers import WhisperFeatureExtractor

    seconds = int(stated.get("max_source_positions", 1500)) // _POSITIONS_PER_SECOND
    return WhisperFeatureExtractor(feature_size=int(stated.get("num_mel_bins", 80)), chunk_length=seconds)


def _window(model: nn.Module, extractor: Any, wanted: float) -> float:
    """Cut the positions of a model, and the window of its extractor, to whole seconds."""
    encoder: Any = next(module for module in model.modules() if hasattr(module, "embed_positions"))
    own = encoder.config.max_source_positions // _POSITIONS_PER_SECOND
    seconds = math.ceil(wanted) if wanted else own
    if not 1 <= seconds <= own:
        expected = f"1 to {own} seconds, or 0 for the longest clip"
        raise ConfigError("window out of range", where="speech.window_seconds", got=wanted, expected=expected)
    frames = seconds * _POSITIONS_PER_SECOND
    if frames != encoder.config.max_source_positions:
        left = nn.Embedding(frames, encoder.embed_positions.embedding_dim)
        left.weight.data.copy_(encoder.embed_positions.weight.detach()[:frames])
        encoder.embed_positions = left.requires_grad_(False)
        encoder.max_source_positions = frames
        for module in model.modules():
            if hasattr(getattr(module, "config", None), "max_source_positions"):
                module.config.max_source_positions = frames  # type: ignore[union-attr]
    extractor.chunk_length = seconds
    extractor.n_samples = seconds * extractor.sampling_rate
    extractor.nb_max_frames = extractor.n_samples // extractor.hop_length
    return float(seconds)


register_family(
    transformers_family(
        "whisper",
        "Whisper: encoder alone, encoder with decoder, classes",
        encoder="model.encoder",
        extractor=_extractor,
        window=_window,
        spoken=lambda text: f" {text}",
    )
)
