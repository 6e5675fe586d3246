"""A module saved by `torch.save`, and opened by a process that has none of this library."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_ALONE = """
import copy, sys, warnings
sys.modules.update(dict.fromkeys(("l0prune", "l0prune_speech", "l0prune_cli")))  # An import of them fails.
import torch
warnings.simplefilter("ignore")
module, inputs, script = torch.load(sys.argv[1], weights_only=False)
outputs = [module(*inputs), copy.deepcopy(module)(*inputs)]
if script:
    outputs.append(torch.jit.script(module)(*inputs))
torch.save((module, outputs), sys.argv[2])
"""


def opened_alone(module: nn.Module, inputs: tuple[Tensor, ...], folder: Path, *, script: bool = False) -> list[Any]:
    """The outputs of a module in another process: as it was opened, copied, scripted, and saved there and opened here.

    Args:
        module: Of classes that the process can import, those that go along apart.
        inputs: Its arguments.
        folder: For what is written.
        script: Whether TorchScript compiles it there.
    """
    torch.save((module, inputs, script), folder / "saved.pt")
    command = [sys.executable, "-P", "-c", _ALONE, folder / "saved.pt", folder / "again.pt"]
    subprocess.run(command, check=True, cwd=folder)
    again, outputs = torch.load(folder / "again.pt", weights_only=False)
    assert [type(each).__name__ for each in again.modules()] == [type(each).__name__ for each in module.modules()]
    return [*outputs, again(*inputs)]
