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


@pytest.mark.parametrize(
    ("name", "amx", "avx512", "fast"),
    [
        ("Intel(R) Xeon(R) Processor", False, True, False),
        ("Intel(R) Xeon(R) Processor", True, True, True),
        ("AMD EPYC 9654 96-Core Processor", False, True, True),
        ("AMD EPYC 7763 64-Core Processor", False, False, False),
    ],
)
def test_bfloat16_is_fast_where_there_are_units_for_it(
    monkeypatch: pytest.MonkeyPatch, name: str, amx: bool, avx512: bool, fast: bool
) -> None:
    monkeypatch.setattr(machine, "cpu_has_amx", lambda: amx)
    monkeypatch.setattr(machine, "cpu_multiplies_bfloat16", lambda: avx512)
    monkeypatch.setattr(machine, "processor", lambda device: name)
    assert machine.has_fast_bfloat16(torch.device("cpu")) == fast
    assert not machine.has_fast_bfloat16(torch.device("meta"))
