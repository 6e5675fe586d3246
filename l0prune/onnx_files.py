"""ONNX files, run by onnxruntime or by OpenVINO."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from l0prune.errors import ConfigError

EXTRAS = {"onnxruntime": "onnx", "openvino": "openvino"}
"""What runs ONNX files, and the extra of this package that it comes with."""
_OPENVINO_DTYPES = {"float32": "f32", "bfloat16": "bf16"}
_TELEMETRY = "openvino_telemetry"


@dataclass(frozen=True, kw_only=True)
class OnnxProgram:
    """A file, ready to run."""

    inputs: Sequence[str]
    """Names, in the file's order."""
    run: Callable[[Mapping[str, np.ndarray]], np.ndarray]
    """Inputs by name -> the first output, which the next run may overwrite."""


def check_library(backend: str) -> None:
    """Raise a `ConfigError` that names the extra where a library for ONNX files is missing."""
    try:
        if backend == "openvino":
            _openvino()
        else:
            import onnxruntime  # noqa: F401
    except ImportError as error:
        hint = f"pip install 'l0prune[{EXTRAS[backend]}]'"
        raise ConfigError("backend is missing", where=backend, hint=hint) from error


def open_onnx(path: Path, backend: str, dtype: str, device: torch.device, threads: int) -> OnnxProgram:
    """A file, loaded by one of `EXTRAS`.

    Args:
        path: The file in float32; for int8 its quantised copy is written beside it.
        backend: "onnxruntime" (float32, int8), or "openvino" (float32, bfloat16; on the CPU).
        dtype: What is computed in. Inputs and outputs stay float32.
        device: Where to run.
        threads: Of the CPU.
    """
    if backend == "openvino":
        return _in_openvino(path, dtype, threads)
    return _in_onnxruntime(_quantized(path) if dtype == "int8" else path, device, threads)


def _in_onnxruntime(path: Path, device: torch.device, threads: int) -> OnnxProgram:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    # Its threads would go on spinning beside whoever is timed next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    cuda = device.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    provider = "CUDAExecutionProvider" if cuda else "CPUExecutionProvider"
    session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
    # What a module returns first, and no copies of all the rest.
    first = [session.get_outputs()[0].name]
    return OnnxProgram(
        inputs=[value.name for value in session.get_inputs()],
        run=lambda feeds: np.asarray(session.run(first, feeds)[0]),
    )


def _in_openvino(path: Path, dtype: str, threads: int) -> OnnxProgram:
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": _OPENVINO_DTYPES[dtype],
    }
    compiled = _openvino().Core().compile_model(str(path), "CPU", settings)
    # Outputs are not copied, as in onnxruntime.
    return OnnxProgram(
        inputs=[value.any_name for value in compiled.inputs],
        run=lambda feeds: compiled(feeds, share_outputs=True)[0],
    )


def _openvino() -> Any:
    """OpenVINO, imported without its telemetry, which would report the import to its makers."""
    modules: dict[str, Any] = sys.modules
    before = modules.get(_TELEMETRY)
    # What is None cannot be imported; OpenVINO then goes without it.
    modules[_TELEMETRY] = None
    try:
        import openvino
    finally:
        del modules[_TELEMETRY]
        if before is not None:
            modules[_TELEMETRY] = before
    return openvino


def _quantized(path: Path) -> Path:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    small = path.with_name(f"{path.stem}.int8.onnx")
    # Convolutions in dynamic int8 are slower than in float32, in onnxruntime as elsewhere.
    quantize_dynamic(path, small, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"])
    return small
