"""Exported programs of streaming networks, opened as their users would."""

from pathlib import Path

from l0prune import DataError
from l0prune.support import check_stamp
from l0prune_speech.streaming import Step, Stream


def open_stream(path: str | Path, *, batch: int = 1, every_layer: bool = False) -> Stream:
    """Run an export on audio in pieces, on the CPU.

    Args:
        path: What `l0prune export --to onnx-streaming` or `--to torch.export-streaming` wrote.
        batch: Streams that go on together.
        every_layer: Give all hidden states instead of the last one.

    Raises:
        ConfigError: onnxruntime is missing.
        DataError: The file is no such program.
        RunError: It is damaged.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            is_archive = file.read(2) == b"PK"
    except OSError as error:
        raise DataError("cannot read the program", where=path, got=error.strerror) from error
    step: Step
    if is_archive:
        from l0prune_speech.formats.torch_export_streaming import ExportedStep

        step = ExportedStep(path)
    else:
        from l0prune_speech.formats.onnx_streaming import OnnxStep

        check_stamp(path)
        step = OnnxStep(path)
    return Stream(step, batch=batch, every_layer=every_layer)
