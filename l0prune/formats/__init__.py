"""Networks as other stacks read them: ONNX, torch.export, TorchScript, safetensors, Hugging Face."""

from l0prune.formats.onnx_file import check_onnx, too_large_for_onnx, write_onnx
from l0prune.formats.registry import MODULE_FORMATS, ModuleFormat, module_format, register_module_format
from l0prune.formats.writing import export_module

__all__ = [
    "MODULE_FORMATS",
    "ModuleFormat",
    "check_onnx",
    "export_module",
    "module_format",
    "register_module_format",
    "too_large_for_onnx",
    "write_onnx",
]
