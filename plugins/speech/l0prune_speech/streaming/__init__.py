"""Encoders that hear audio in chunks: made of dense ones, run chunk by chunk with caches."""

from typing import TYPE_CHECKING

from l0prune.support import lazy_names

if TYPE_CHECKING:
    from l0prune_speech.streaming.layout import UNKNOWN_LENGTH, Layout
    from l0prune_speech.streaming.step import StreamStep
    from l0prune_speech.streaming.stream import Step, Stream, streaming
    from l0prune_speech.streaming.student import hears_whole_clips, streaming_encoder

    __all__ = [
        "UNKNOWN_LENGTH",
        "Layout",
        "Step",
        "Stream",
        "StreamStep",
        "hears_whole_clips",
        "streaming",
        "streaming_encoder",
    ]

_HOMES = {
    "layout": ("UNKNOWN_LENGTH", "Layout"),
    "step": ("StreamStep",),
    "stream": ("Step", "Stream", "streaming"),
    "student": ("hears_whole_clips", "streaming_encoder"),
}

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = lazy_names(__name__, _HOMES)
