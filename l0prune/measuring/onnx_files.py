"""ONNX files, run by onnxruntime or by OpenVINO."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from l0prune.errors import ConfigError
from l0prune.measuring.openvino_process import OpenVinoProcess
from l0prune.quantisation import dynamic_int8, is_int8

EXTRAS = {"onnxruntime": "onnx", "openvino": "openvino"}
"""What runs ONNX files, and the extra of this package that it comes with."""


@dataclass(frozen=True, kw_only=True)
class OnnxProgram:
    """A file, ready to run."""

    inputs: Sequence[str]
    """Names, in the file's order."""
    prepare: Callable[[Mapping[str, np.ndarray]], Callable[[], object]]
    """Inputs by name -> what computes the first output of them."""


def check_library(backend: str) -> None:
    """Raise a `ConfigError` that names the extra where a library for ONNX files is missing."""
    # To look for OpenVINO is not to import it, which belongs in a process of its own.
    if find_spec(backend) is None:
        raise ConfigError("backend is missing", where=backend, hint=f"pip install 'l0prune[{EXTRAS[backend]}]'")


def open_onnx(path: Path, backend: str, dtype: str, device: torch.device, threads: int) -> OnnxProgram:
    """A file, loaded by one of `EXTRAS`.

    Args:
        path: The file in float32; for int8 its quantised copy is written beside it.
        backend: "onnxruntime" (float32, int8), or "openvino" (float32, bfloat16; on the CPU).
        dtype: What is computed in. Inputs and outputs stay float32.
        device: Where to run.
        threads: Of the CPU.

    Raises:
        ConfigError: The library cannot take the file.
    """
    try:
        if backend == "openvino":
            return _in_openvino(path, dtype, threads)
        return _in_onnxruntime(quantized(path, path.parent) if dtype == "int8" else path, device, threads)
    except Exception as error:
        # Where in the library comes first, and what at the end.
        got = (str(error).strip().splitlines() or [type(error).__name__])[-1][-200:]
        raise ConfigError(f"{backend} cannot take the file", where=path, got=got) from error


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
        prepare=lambda feeds: lambda: session.run(first, feeds)[0],
    )


def _in_openvino(path: Path, dtype: str, threads: int) -> OnnxProgram:
    process = OpenVinoProcess(path, dtype, threads)
    return OnnxProgram(inputs=process.inputs, prepare=process.prepare)


def quantized(path: Path, folder: Path) -> Path:
    """A file whose linear layers compute in int8 (dynamic quantisation), written into a folder; itself if it does."""
    if is_int8(path):
        return path
    small = folder / f"{path.stem}.int8.onnx"
    dynamic_int8(path, small)
    return small
