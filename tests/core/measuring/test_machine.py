"""The machine at hand, also where it lacks what others have."""

import subprocess
import sys

import pytest
import torch

from l0prune.measuring import machine, peak_memory_bytes

WITHOUT_POSIX = """
import sys
for name in ("resource", "fcntl", "pwd", "grp", "termios"):
    sys.modules[name] = None
import warnings
warnings.simplefilter("ignore")
import torch
from torch import nn
import l0prune

model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
pruner = l0prune.wrap(model, torch.randn(3, 4), target_sparsity=0.5)
(model(torch.randn(3, 4)).sum() + pruner.penalty()).backward()
pruner.step()
smaller = pruner.finalize()
l0prune.save(smaller, pruner.plan, sys.argv[1])
assert l0prune.measure({"model": smaller}, torch.randn(3, 4), seconds=0.01).rows
"""


def test_wrap_needs_no_modules_of_posix(tmp_path) -> None:
    command = [sys.executable, "-P", "-c", WITHOUT_POSIX, str(tmp_path / "saved")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_peak_memory_is_counted_or_said_to_be_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert peak_memory_bytes(torch.device("cpu")) > 10_000_000
    monkeypatch.setattr(machine, "resource", None)
    assert peak_memory_bytes(torch.device("cpu")) == 0
