"""Programs of torch.export that hear audio chunk by chunk."""

import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from l0prune import DataError
from l0prune_speech.formats.checkpoint import Checkpoint
from l0prune_speech.formats.registry import Format, register_format
from l0prune_speech.formats.streaming_program import (
    LAYOUT,
    chunk_by_chunk,
    in_one_pass,
    refuses_whole_clips,
    step_of,
    step_shapes,
)
from l0prune_speech.streaming import Layout


class ExportedStep:
    """A program of this format.

    Args:
        path: The file.

    Raises:
        DataError: The file is no such program.
    """

    def __init__(self, path: Path) -> None:
        extra = {LAYOUT: ""}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._program = torch.export.load(path, extra_files=extra).module()
        except (OSError, RuntimeError, ValueError, AssertionError, zipfile.BadZipFile) as error:
            raise DataError("cannot open the program", where=path, got=" ".join(str(error).split())) from error
        text = extra[LAYOUT]
        if not text:
            hint = "l0prune export RUN --to torch.export-streaming"
            raise DataError("the program takes no chunks", where=path, hint=hint)
        self.layout = Layout.from_json(text, path)

    def __call__(self, samples: Tensor, lengths: Tensor, *caches: Tensor) -> Sequence[Tensor]:
        """See `StreamStep.forward`."""
        return self._program(samples, lengths, *caches)


def to_torch_export_streaming(checkpoint: Checkpoint, path: Path, _card: str = "") -> list[str]:
    """Write a program of one chunk, for `torch.export.load`."""
    step = step_of(checkpoint)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shapes = step_shapes(step.layout)
        program = torch.export.export(step, step.example(2), dynamic_shapes=shapes)
    torch.export.save(program, path, extra_files={LAYOUT: step.layout.to_json()})
    return []


register_format(
    Format(
        name="torch.export-streaming",
        holds="a torch.export program that takes a chunk of audio and its caches, of a streaming network; any batch",
        suffix=".pt2",
        write=to_torch_export_streaming,
        open=lambda path: chunk_by_chunk(ExportedStep(path)),
        opened_by="torch.export, chunk by chunk",
        expected=in_one_pass,
        refuses=refuses_whole_clips,
        holds_streaming=True,
    )
)
