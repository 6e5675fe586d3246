"""Audio in: clips, and batches of them."""

from l0prune_speech.data.audio import find_clips, read
from l0prune_speech.data.batching import AudioBatches, clips_digest, fixed_batches
from l0prune_speech.data.clips import SAMPLE_RATE, Clip, ClipSet, Framing
from l0prune_speech.data.labels import LabelledClip, LabelledClips, find_labelled, is_list
from l0prune_speech.data.pieces import Part, Piece, PieceBatch, PieceBatches, joined, piece, split
from l0prune_speech.data.sources import SUFFIXES
from l0prune_speech.data.windows import Sound, Sounds, Window, find_sounds

__all__ = [
    "SAMPLE_RATE",
    "SUFFIXES",
    "AudioBatches",
    "Clip",
    "ClipSet",
    "Framing",
    "LabelledClip",
    "LabelledClips",
    "Part",
    "Piece",
    "PieceBatch",
    "PieceBatches",
    "Sound",
    "Sounds",
    "Window",
    "clips_digest",
    "find_clips",
    "find_labelled",
    "find_sounds",
    "fixed_batches",
    "is_list",
    "joined",
    "piece",
    "read",
    "split",
]
