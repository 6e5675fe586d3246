"""TorchScript programs."""

import warnings
from pathlib import Path

import torch

from l0prune_speech.formats.checkpoint import Checkpoint
from l0prune_speech.formats.program import Program, example, opened, program_outputs
from l0prune_speech.formats.registry import Format, Run, register_format


def to_torchscript(checkpoint: Checkpoint, path: Path, _card: str = "") -> list[str]:
    """Write a TorchScript program, for `torch.jit.load` in Python or C++."""
    with torch.no_grad(), warnings.catch_warnings():
        # Shapes are compared while tracing; that they stay free is checked at other lengths afterwards.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(Program(checkpoint), example(), check_trace=False)
        torch.jit.save(traced, str(path))
    return []


def run_torchscript(path: Path) -> Run:
    """A function that runs the program."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.jit.load(str(path), map_location="cpu")
    return lambda waveforms, lengths: list(program(waveforms, lengths))


register_format(
    Format(
        name="torchscript",
        holds="a TorchScript program for Python and C++; any batch and length",
        suffix=".pt",
        write=to_torchscript,
        open=opened(run_torchscript),
        opened_by="torch.jit",
        expected=program_outputs,
        holds_streaming=True,
    )
)
