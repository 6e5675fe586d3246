"""Checkpoint formats: one file each, around one `Checkpoint`. `register_format` adds one of your own."""

from typing import TYPE_CHECKING

from l0prune.support import lazy_names

if TYPE_CHECKING:
    from l0prune_speech.formats.card import model_card
    from l0prune_speech.formats.checkpoint import Checkpoint, folded, from_encoder, to_encoder
    from l0prune_speech.formats.dphubert import to_dphubert
    from l0prune_speech.formats.huggingface import to_huggingface
    from l0prune_speech.formats.huggingface_reading import folder_checksum
    from l0prune_speech.formats.onnx_model import to_onnx
    from l0prune_speech.formats.registry import (
        FORMATS,
        Format,
        Outputs,
        Run,
        format_named,
        formats,
        register_format,
    )
    from l0prune_speech.formats.source import Source
    from l0prune_speech.formats.streams import open_stream
    from l0prune_speech.formats.teachers import load_teacher, read_checkpoint

    __all__ = [
        "FORMATS",
        "Checkpoint",
        "Format",
        "Outputs",
        "Run",
        "Source",
        "folded",
        "folder_checksum",
        "format_named",
        "formats",
        "from_encoder",
        "load_teacher",
        "model_card",
        "open_stream",
        "read_checkpoint",
        "register_format",
        "to_dphubert",
        "to_encoder",
        "to_huggingface",
        "to_onnx",
    ]

_HOMES = {
    "card": ("model_card",),
    "checkpoint": (
        "Checkpoint",
        "folded",
        "from_encoder",
        "to_encoder",
    ),
    "dphubert": ("to_dphubert",),
    "huggingface": ("to_huggingface",),
    "huggingface_reading": ("folder_checksum",),
    "onnx_model": ("to_onnx",),
    "registry": (
        "FORMATS",
        "Format",
        "Outputs",
        "Run",
        "format_named",
        "formats",
        "register_format",
    ),
    "source": ("Source",),
    "streams": ("open_stream",),
    "teachers": (
        "load_teacher",
        "read_checkpoint",
    ),
}

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = lazy_names(__name__, _HOMES)
