"""ONNX models."""

from pathlib import Path

import torch
from torch import Tensor

from l0prune.formats import check_onnx, too_large_for_onnx, write_onnx
from l0prune_speech.formats.checkpoint import Checkpoint
from l0prune_speech.formats.program import INPUTS, OUTPUTS, Program, dynamic_shapes, example, opened, program_outputs
from l0prune_speech.formats.registry import Format, Outputs, Run, register_format


def to_onnx(checkpoint: Checkpoint, path: Path, _card: str = "") -> list[str]:
    """Write an ONNX model.

    Raises:
        ConfigError: The packages that write and check it are missing.
    """
    shapes = dynamic_shapes()
    return write_onnx(Program(checkpoint), example(), path, inputs=INPUTS, outputs=OUTPUTS, dynamic_shapes=shapes)


def _refuses(checkpoint: Checkpoint) -> str | None:
    return too_large_for_onnx(sum(tensor.numel() * 4 for tensor in checkpoint.tensors.values()))


def run_onnx(path: Path) -> Run:
    """A function that runs the model in onnxruntime, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(waveforms: Tensor, lengths: Tensor) -> Outputs:
        feeds = dict(zip(INPUTS, (waveforms.numpy(), lengths.numpy()), strict=True))
        return [torch.from_numpy(array) for array in session.run(list(OUTPUTS), feeds)]

    return run


register_format(
    Format(
        name="onnx",
        holds="an ONNX model; any batch and length, float32, at most 530 million parameters (2 GB)",
        suffix=".onnx",
        write=to_onnx,
        open=opened(run_onnx),
        opened_by="onnxruntime",
        expected=program_outputs,
        holds_streaming=True,
        tolerance=1e-4,
        refuses=_refuses,
        needs=check_onnx,
    )
)
