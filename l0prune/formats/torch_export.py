"""Programs of torch.export."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from l0prune.formats.example import Example
from l0prune.formats.program import Program, as_list, dynamic_shapes
from l0prune.formats.registry import ModuleFormat, Opened, register_module_format


def _write(module: Any, example: Example, path: Path) -> list[str]:
    wide = example.widened()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            Program(module, wide), wide.args, wide.kwargs, dynamic_shapes=dynamic_shapes(wide)
        )
        torch.export.save(program, path)
    return []


def open_program(path: Path, _module: Any) -> Opened:
    """What runs a program from a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.load(path).module()

    def run(example: Example) -> list[Tensor]:
        with torch.no_grad():
            return as_list(program(*example.args, **example.kwargs))

    return run


register_module_format(
    ModuleFormat(
        name="torch.export",
        holds="a torch.export program, for torch.export.load; arguments are those of the example",
        suffix=".pt2",
        free_batch=True,
        write=_write,
        open=open_program,
        opened_by="torch.export",
    )
)
