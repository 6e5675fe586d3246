"""TorchScript programs."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from l0prune.formats.example import Example
from l0prune.formats.program import PositionalProgram, as_list, input_names
from l0prune.formats.registry import ModuleFormat, Opened, register_module_format


def _write(module: Any, example: Example, path: Path) -> list[str]:
    wide = example.widened()
    with torch.no_grad(), warnings.catch_warnings():
        # Shapes are compared while tracing; that they stay free is checked in another size afterwards.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(PositionalProgram(module, wide), tuple(wide.tensors), check_trace=False)
        torch.jit.save(traced, str(path))
    return [] if wide.positional else [f"arguments go by position: {', '.join(input_names(wide))}"]


def _open(path: Path, _module: Any) -> Opened:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.jit.load(str(path), map_location="cpu")

    def run(example: Example) -> list[Tensor]:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return as_list(program(*example.tensors))

    return run


register_module_format(
    ModuleFormat(
        name="torchscript",
        holds="a traced TorchScript program for Python and C++; arguments go by position",
        suffix=".pt",
        free_batch=True,
        write=_write,
        open=_open,
        opened_by="torch.jit",
    )
)
