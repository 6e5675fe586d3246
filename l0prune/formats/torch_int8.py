"""Programs of torch.export in int8."""

from pathlib import Path
from typing import Any

import torch

from l0prune.formats.example import Example
from l0prune.formats.onnx_int8 import INT8_NOISE
from l0prune.formats.program import Program, dynamic_shapes
from l0prune.formats.registry import ModuleFormat, register_module_format
from l0prune.formats.torch_export import open_program
from l0prune.quantisation import check_torchao, int8_program


def _write(module: Any, example: Example, path: Path) -> list[str]:
    wide = example.widened()
    calibration = [(each.args, each.kwargs) for each in example.calibration]
    program = int8_program(Program(module, wide), (wide.args, wide.kwargs), calibration, dynamic_shapes(wide))
    torch.export.save(program, path)
    return ["linear layers take int8, convolutions keep int8 weights; import torchao.quantization.pt2e to load it"]


register_module_format(
    ModuleFormat(
        name="torch.export-int8",
        holds="a torch.export program with int8 weights, whose linear layers take int8; inductor makes it fast",
        suffix=".pt2",
        free_batch=True,
        write=_write,
        open=open_program,
        opened_by="torch.export",
        tolerance=INT8_NOISE,
        lossy=True,
        calibrated=True,
        needs=check_torchao,
    )
)
