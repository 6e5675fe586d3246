"""Networks whose weights and activations have eight bits: ONNX files, and programs of torch.export."""

from typing import TYPE_CHECKING

from l0prune.support import lazy_names

if TYPE_CHECKING:
    from l0prune.quantisation.fake_int8 import rounding
    from l0prune.quantisation.instructions import has_int8_instructions, int8_words
    from l0prune.quantisation.onnx_int8 import Feeds, check_quantiser, dynamic_int8, is_int8, static_int8
    from l0prune.quantisation.torch_int8 import check_torchao, int8_program

    __all__ = [
        "Feeds",
        "check_quantiser",
        "check_torchao",
        "dynamic_int8",
        "has_int8_instructions",
        "int8_program",
        "int8_words",
        "is_int8",
        "rounding",
        "static_int8",
    ]

_HOMES = {
    "instructions": ("has_int8_instructions", "int8_words"),
    "onnx_int8": ("Feeds", "check_quantiser", "dynamic_int8", "is_int8", "static_int8"),
    "fake_int8": ("rounding",),
    "torch_int8": ("check_torchao", "int8_program"),
}

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = lazy_names(__name__, _HOMES)
