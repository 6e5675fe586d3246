"""HuBERT, WavLM and wav2vec 2.0 encoders, and the units in them that can be pruned."""

from pathlib import Path

from l0prune.support import carry_source
from l0prune_speech.encoder import modules
from l0prune_speech.encoder.chunks import ChannelAffine, Chunks, RunningLevel
from l0prune_speech.encoder.groups import encoder_groups, head_group
from l0prune_speech.encoder.modules import (
    RelativePositionBias,
    SpeechEncoder,
    WavLMAttention,
    build_encoder,
    normalized,
    slim_config,
)
from l0prune_speech.encoder.recording import Recording, head_shares, record

CODE = Path(modules.__file__)
"""The file with the classes of encoders, which needs nothing else of this package."""

__all__ = [
    "CODE",
    "ChannelAffine",
    "Chunks",
    "Recording",
    "RelativePositionBias",
    "RunningLevel",
    "SpeechEncoder",
    "WavLMAttention",
    "build_encoder",
    "encoder_groups",
    "head_group",
    "head_shares",
    "normalized",
    "record",
    "slim_config",
]

carry_source(
    modules.SpeechEncoder,
    modules.SpeechTransformer,
    modules.RelativePositionBias,
    modules.WavLMAttention,
    modules.ScaledFeatureExtractor,
    modules.Emptied,
    ChannelAffine,
    Chunks,
    RunningLevel,
)
