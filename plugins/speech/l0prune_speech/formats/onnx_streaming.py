"""ONNX models that hear audio chunk by chunk."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from l0prune import DataError
from l0prune.formats import check_onnx, write_onnx
from l0prune_speech.formats.checkpoint import Checkpoint
from l0prune_speech.formats.registry import Format, register_format
from l0prune_speech.formats.streaming_program import (
    LAYOUT,
    chunk_by_chunk,
    in_one_pass,
    input_names,
    output_names,
    refuses_whole_clips,
    step_of,
    step_shapes,
)
from l0prune_speech.streaming import Layout


class OnnxStep:
    """A model of this format in onnxruntime, on the CPU.

    Args:
        path: The file.

    Raises:
        ConfigError: onnxruntime is missing.
        DataError: The file is no such model.
    """

    def __init__(self, path: Path) -> None:
        check_onnx()
        import onnxruntime

        try:
            self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        # onnxruntime's own classes of errors have no common public base.
        except Exception as error:
            raise DataError("cannot open the ONNX model", where=path, got=" ".join(str(error).split())) from error
        text = self._session.get_modelmeta().custom_metadata_map.get(LAYOUT)
        if text is None:
            hint = "l0prune export RUN --to onnx-streaming"
            raise DataError("the ONNX model takes no chunks", where=path, hint=hint)
        self.layout = Layout.from_json(text, path)

    def __call__(self, samples: Tensor, lengths: Tensor, *caches: Tensor) -> Sequence[Tensor]:
        """See `StreamStep.forward`."""
        given = (tensor.numpy() for tensor in (samples, lengths, *caches))
        feeds = dict(zip(input_names(self.layout), given, strict=True))
        return [torch.from_numpy(array) for array in self._session.run(output_names(self.layout), feeds)]


def to_onnx_streaming(checkpoint: Checkpoint, path: Path, _card: str = "") -> list[str]:
    """Write an ONNX model of one chunk.

    Raises:
        ConfigError: The packages that write and check it are missing.
    """
    step = step_of(checkpoint)
    return write_onnx(
        step,
        step.example(2),
        path,
        inputs=input_names(step.layout),
        outputs=output_names(step.layout),
        dynamic_shapes=step_shapes(step.layout),
        metadata={LAYOUT: step.layout.to_json()},
    )


register_format(
    Format(
        name="onnx-streaming",
        holds="an ONNX model that takes a chunk of audio and its caches, of a streaming network; any batch",
        suffix=".onnx",
        write=to_onnx_streaming,
        open=lambda path: chunk_by_chunk(OnnxStep(path)),
        opened_by="onnxruntime, chunk by chunk",
        expected=in_one_pass,
        tolerance=1e-4,
        refuses=refuses_whole_clips,
        needs=check_onnx,
        holds_streaming=True,
    )
)
