"""ONNX models in int8: static, with scales from calibration audio, and dynamic."""

from pathlib import Path

import numpy as np

from l0prune.formats import FUSED_OPSET, INT8_NOISE, check_onnx, write_int8
from l0prune.quantisation import Feeds
from l0prune_speech.formats.checkpoint import Checkpoint
from l0prune_speech.formats.onnx_model import refuses_onnx, run_onnx, to_onnx
from l0prune_speech.formats.program import INPUTS, opened, program_outputs
from l0prune_speech.formats.registry import Format, register_format


def _static(checkpoint: Checkpoint, path: Path, _card: str = "") -> list[str]:
    return _write(checkpoint, path, calibration=True)


def _dynamic(checkpoint: Checkpoint, path: Path, _card: str = "") -> list[str]:
    return _write(checkpoint, path, calibration=False)


def _write(checkpoint: Checkpoint, path: Path, *, calibration: bool) -> list[str]:
    feeds: list[Feeds] = [
        dict(zip(INPUTS, (clip.numpy()[None], np.array([len(clip)])), strict=True)) for clip in checkpoint.calibration
    ]
    return write_int8(lambda plain: to_onnx(checkpoint, plain, opset=FUSED_OPSET), path, feeds if calibration else None)


register_format(
    Format(
        name="onnx-int8",
        holds="an ONNX model in int8, with scales from calibration audio (QDQ); any batch and length",
        suffix=".onnx",
        write=_static,
        open=opened(run_onnx),
        opened_by="onnxruntime",
        expected=program_outputs,
        tolerance=INT8_NOISE,
        lossy=True,
        calibrated=True,
        refuses=refuses_onnx,
        needs=check_onnx,
    )
)
register_format(
    Format(
        name="onnx-int8-dynamic",
        holds="an ONNX model whose linear layers compute in int8, without calibration; any batch and length",
        suffix=".onnx",
        write=_dynamic,
        open=opened(run_onnx),
        opened_by="onnxruntime",
        expected=program_outputs,
        tolerance=INT8_NOISE,
        lossy=True,
        refuses=refuses_onnx,
        needs=check_onnx,
    )
)
