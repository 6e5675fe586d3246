"""Checkpoint formats: one file each, with a from_ function, a to_ function, or both, around one `Checkpoint`."""

from typing import TYPE_CHECKING

from l0prune.support import lazy_names

if TYPE_CHECKING:
    from l0prune_speech.formats.card import model_card
    from l0prune_speech.formats.checkpoint import folded, from_encoder, to_encoder
    from l0prune_speech.formats.dphubert import open_pickled, to_diarizen, to_dphubert
    from l0prune_speech.formats.graphs import onnx_way, to_onnx, torch_export_way, torchscript_way
    from l0prune_speech.formats.huggingface import huggingface_way
    from l0prune_speech.formats.registry import FORMATS
    from l0prune_speech.formats.s3prl import open_s3prl, to_s3prl
    from l0prune_speech.formats.teachers import load_teacher
    from l0prune_speech.formats.way import Way, plain_way

    __all__ = [
        "FORMATS",
        "Way",
        "folded",
        "from_encoder",
        "huggingface_way",
        "load_teacher",
        "model_card",
        "onnx_way",
        "open_pickled",
        "open_s3prl",
        "plain_way",
        "to_diarizen",
        "to_dphubert",
        "to_encoder",
        "to_onnx",
        "to_s3prl",
        "torch_export_way",
        "torchscript_way",
    ]

_HOMES = {
    "card": ("model_card",),
    "checkpoint": (
        "folded",
        "from_encoder",
        "to_encoder",
    ),
    "dphubert": (
        "open_pickled",
        "to_diarizen",
        "to_dphubert",
    ),
    "graphs": (
        "onnx_way",
        "to_onnx",
        "torch_export_way",
        "torchscript_way",
    ),
    "huggingface": ("huggingface_way",),
    "registry": ("FORMATS",),
    "s3prl": (
        "open_s3prl",
        "to_s3prl",
    ),
    "teachers": ("load_teacher",),
    "way": (
        "Way",
        "plain_way",
    ),
}

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = lazy_names(__name__, _HOMES)
