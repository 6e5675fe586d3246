"""Networks as other stacks read them: ONNX, torch.export, TorchScript, safetensors, Hugging Face."""

from l0prune.formats.huggingface import add_code, code_in, quiet
from l0prune.formats.onnx_file import check_onnx, too_large_for_onnx, write_onnx
from l0prune.formats.registry import (
    MODULE_FORMATS,
    ModuleFormat,
    module_format,
    no_such_format,
    register_module_format,
)
from l0prune.formats.writing import export_module

__all__ = [
    "MODULE_FORMATS",
    "ModuleFormat",
    "add_code",
    "check_onnx",
    "code_in",
    "export_module",
    "module_format",
    "no_such_format",
    "quiet",
    "register_module_format",
    "too_large_for_onnx",
    "write_onnx",
]
