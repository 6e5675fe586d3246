"""ONNX models."""

import warnings
from pathlib import Path

import torch
from torch import Tensor

from l0prune import ConfigError
from l0prune.support import STAMP, stamp
from l0prune_speech.formats.checkpoint import Checkpoint
from l0prune_speech.formats.program import INPUTS, OUTPUTS, Program, dynamic_shapes, example, opened, program_outputs
from l0prune_speech.formats.registry import Format, Outputs, Run, register_format

OPSET = 18
"""The first with GroupNorm's present form, and what the exporter writes without conversion."""
LARGEST_ONNX = 2**31 - 1
"""Bytes of a file in protobuf's format, which ONNX is."""
_GRAPH_BYTES = 2**24
"""Room for the graph beside its weights: it takes 0.1 MB a layer."""


def to_onnx(checkpoint: Checkpoint, path: Path, _card: str = "") -> list[str]:
    """Write an ONNX model.

    Raises:
        ConfigError: The packages that write and check it are missing.
    """
    check_onnx()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Program(checkpoint),
            example(),
            dynamo=True,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_shapes=dynamic_shapes(),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    # Room for the checksum of the file, which follows when it is whole.
    program.model.metadata_props[STAMP] = "0" * 64
    program.save(str(path), external_data=False)
    stamp(path)
    return [f"opset {OPSET}"]


def too_large_for_onnx(checkpoint: Checkpoint) -> str | None:
    """Why an ONNX file cannot hold a network, if it cannot."""
    size = sum(tensor.numel() * 4 for tensor in checkpoint.tensors.values())
    if size <= LARGEST_ONNX - _GRAPH_BYTES:
        return None
    return f"{size / 1e9:.2f} GB of weights, where an ONNX file ends at {LARGEST_ONNX / 1e9:.2f} GB"


def check_onnx() -> None:
    """Raise a `ConfigError` where onnx, onnxscript or onnxruntime is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        hint = "pip install 'l0prune[onnx]'"
        raise ConfigError("ONNX export needs onnx, onnxscript and onnxruntime", got=error, hint=hint) from error


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
        tolerance=1e-4,
        refuses=too_large_for_onnx,
        needs=check_onnx,
    )
)
