"""What networks cost: counted, and timed on the machine at hand."""

from typing import TYPE_CHECKING

from l0prune.support import lazy_names

if TYPE_CHECKING:
    from l0prune.measuring.benchmark import Measurement, Row, measure
    from l0prune.measuring.count import macs, macs_by_module, parameters
    from l0prune.measuring.machine import has_fast_bfloat16, peak_memory_bytes, pick_device, processor
    from l0prune.measuring.onnx_files import quantized
    from l0prune.measuring.timing import freed_memory_kept, interleave, speedup
    from l0prune.measuring.variants import Contender, Load, Variant, check_variants, linear_layers_in_int8

    __all__ = [
        "Contender",
        "Load",
        "Measurement",
        "Row",
        "Variant",
        "check_variants",
        "freed_memory_kept",
        "has_fast_bfloat16",
        "interleave",
        "linear_layers_in_int8",
        "macs",
        "macs_by_module",
        "measure",
        "parameters",
        "peak_memory_bytes",
        "pick_device",
        "processor",
        "quantized",
        "speedup",
    ]

_HOMES = {
    "benchmark": (
        "Measurement",
        "Row",
        "measure",
    ),
    "count": (
        "macs",
        "macs_by_module",
        "parameters",
    ),
    "machine": (
        "has_fast_bfloat16",
        "peak_memory_bytes",
        "pick_device",
        "processor",
    ),
    "onnx_files": ("quantized",),
    "timing": (
        "freed_memory_kept",
        "interleave",
        "speedup",
    ),
    "variants": (
        "Contender",
        "Load",
        "Variant",
        "check_variants",
        "linear_layers_in_int8",
    ),
}

if not TYPE_CHECKING:
    __getattr__, __dir__, __all__ = lazy_names(__name__, _HOMES)
