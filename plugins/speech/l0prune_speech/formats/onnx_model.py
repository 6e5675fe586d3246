"""ONNX models."""

from pathlib import Path

import torch
from torch import Tensor

from l0prune.formats import OPSET, check_onnx, too_large_for_onnx, write_onnx
from l0prune_speech.formats.checkpoint import Checkpoint
from l0prune_speech.formats.program import INPUTS, OUTPUTS, Program, dynamic_shapes, example, opened, program_outputs
from l0prune_speech.formats.registry import Format, Outputs, Run, register_format


def to_onnx(checkpoint: Checkpoint, path: Path, _card: str = "", opset: int = OPSET) -> list[str]:
    """Write an ONNX model.

    Args:
        checkpoint: The encoder.
        path: The file.
        opset: The version of ONNX's operators.

    Raises:
        ConfigError: The packages that write and check it are missing.
    """
    shapes = dynamic_shapes()
    program = Program(checkpoint)
    return write_onnx(program, example(), path, inputs=INPUTS, outputs=OUTPUTS, dynamic_shapes=shapes, opset=opset)


def refuses_onnx(checkpoint: Checkpoint) -> str | None:
    """Why an ONNX file cannot hold an encoder, if it cannot."""
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
        refuses=refuses_onnx,
        needs=check_onnx,
    )
)
