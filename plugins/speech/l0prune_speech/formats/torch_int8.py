"""Programs of torch.export in int8."""

from pathlib import Path

import torch

from l0prune.formats import INT8_NOISE
from l0prune.quantisation import check_torchao, int8_program
from l0prune_speech.formats.checkpoint import Checkpoint
from l0prune_speech.formats.program import Program, dynamic_shapes, example, opened, program_outputs
from l0prune_speech.formats.registry import Format, register_format
from l0prune_speech.formats.torch_export import run_torch_export


def _write(checkpoint: Checkpoint, path: Path, _card: str = "") -> list[str]:
    calibration = [((clip[None], torch.tensor([len(clip)])), {}) for clip in checkpoint.calibration]
    program = int8_program(Program(checkpoint), (example(), {}), calibration, dynamic_shapes())
    torch.export.save(program, path)
    return ["linear layers take int8, convolutions keep int8 weights; import torchao.quantization.pt2e to load it"]


register_format(
    Format(
        name="torch.export-int8",
        holds="a torch.export program with int8 weights, scales from calibration audio; inductor makes it fast",
        suffix=".pt2",
        write=_write,
        open=opened(run_torch_export),
        opened_by="torch.export",
        expected=program_outputs,
        tolerance=INT8_NOISE,
        lossy=True,
        calibrated=True,
        needs=check_torchao,
    )
)
