"""Audio in: clips, and batches of them."""

from l0prune_speech.data.audio import SAMPLE_RATE, SUFFIXES, Clip, ClipSet, Framing, find_clips, read
from l0prune_speech.data.batching import AudioBatches, clips_digest, fixed_batches

__all__ = [
    "SAMPLE_RATE",
    "SUFFIXES",
    "AudioBatches",
    "Clip",
    "ClipSet",
    "Framing",
    "clips_digest",
    "find_clips",
    "fixed_batches",
    "read",
]
