"""Networks as other stacks read them: ONNX, torch.export, TorchScript, safetensors, Hugging Face."""

from l0prune.formats.huggingface import add_code, code_in, quiet
from l0prune.formats.onnx_file import FUSED_OPSET, OPSET, check_onnx, too_large_for_onnx, write_onnx
from l0prune.formats.onnx_int8 import INT8_NOISE, write_int8
from l0prune.formats.registry import (
    MODULE_FORMATS,
    ModuleFormat,
    module_format,
    no_such_format,
    register_module_format,
)
from l0prune.formats.writing import FLOAT32_BYTES, export_module, size_on_disk

__all__ = [
    "FLOAT32_BYTES",
    "FUSED_OPSET",
    "INT8_NOISE",
    "MODULE_FORMATS",
    "OPSET",
    "ModuleFormat",
    "add_code",
    "check_onnx",
    "code_in",
    "export_module",
    "module_format",
    "no_such_format",
    "quiet",
    "register_module_format",
    "size_on_disk",
    "too_large_for_onnx",
    "write_int8",
    "write_onnx",
]
