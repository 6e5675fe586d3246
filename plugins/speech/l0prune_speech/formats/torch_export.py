"""Programs of torch.export."""

import warnings
from pathlib import Path

import torch

from l0prune_speech.formats.checkpoint import Checkpoint
from l0prune_speech.formats.program import Program, dynamic_shapes, example, opened, program_outputs
from l0prune_speech.formats.registry import Format, Run, register_format


def to_torch_export(checkpoint: Checkpoint, path: Path, _card: str = "") -> list[str]:
    """Write a program of `torch.export`, for `torch.export.load`."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(Program(checkpoint), example(), dynamic_shapes=dynamic_shapes())
    torch.export.save(program, path)
    return []


def run_torch_export(path: Path) -> Run:
    """A function that runs the program."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.load(path).module()
    return lambda waveforms, lengths: list(program(waveforms, lengths))


register_format(
    Format(
        name="torch.export",
        holds="a torch.export program; any batch, any length from two frames (45 ms) on",
        suffix=".pt2",
        write=to_torch_export,
        open=opened(run_torch_export),
        opened_by="torch.export",
        expected=program_outputs,
        holds_streaming=True,
    )
)
