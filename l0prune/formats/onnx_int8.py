"""ONNX files in int8: static, with scales from calibration, and dynamic."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from l0prune.formats.example import Example
from l0prune.formats.onnx_file import FUSED_OPSET, check_onnx, feeds_of, open_module, refuses_onnx, write_module
from l0prune.formats.registry import ModuleFormat, register_module_format
from l0prune.quantisation import Feeds, dynamic_int8, int8_words, static_int8

INT8_NOISE = 0.316
"""Of the signal (10 dB): what has more is no use."""


def write_int8(write: Callable[[Path], list[str]], path: Path, calibration: Sequence[Feeds] | None) -> list[str]:
    """Write an ONNX file in int8.

    Args:
        write: Writes the file in float32, and says what it was written with.
        path: The file.
        calibration: Inputs by name for a static file; None for a dynamic one.

    Returns:
        What was done, for the user.
    """
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "float32.onnx"
        notes = write(plain)
        done = dynamic_int8(plain, path) if calibration is None else static_int8(plain, path, calibration)
    words = int8_words()
    return [*notes, *done, *([words] if words else [])]


def _static(module: Any, example: Example, path: Path) -> list[str]:
    feeds = [feeds_of(each) for each in example.calibration]
    return write_int8(lambda plain: write_module(module, example, plain, FUSED_OPSET), path, feeds)


def _dynamic(module: Any, example: Example, path: Path) -> list[str]:
    return write_int8(lambda plain: write_module(module, example, plain, FUSED_OPSET), path, None)


register_module_format(
    ModuleFormat(
        name="onnx-int8",
        holds="an ONNX file in int8 with its SHA-256; scales of activations come from calibration (QDQ)",
        suffix=".onnx",
        free_batch=True,
        write=_static,
        open=open_module,
        opened_by="onnxruntime",
        tolerance=INT8_NOISE,
        lossy=True,
        calibrated=True,
        refuses=refuses_onnx,
        needs=check_onnx,
    )
)
register_module_format(
    ModuleFormat(
        name="onnx-int8-dynamic",
        holds="an ONNX file whose linear layers compute in int8, with its SHA-256; it needs no calibration",
        suffix=".onnx",
        free_batch=True,
        write=_dynamic,
        open=open_module,
        opened_by="onnxruntime",
        tolerance=INT8_NOISE,
        lossy=True,
        refuses=refuses_onnx,
        needs=check_onnx,
    )
)
