"""Where figures come from: what every results file says of its machine, versions and commit."""

import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from l0prune.measuring import processor
from l0prune.support import versions


def where(device: torch.device) -> dict[str, Any]:
    """Device, versions and commit of the figures."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "device": str(device),
        "processor": processor(device),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "versions": versions("torchaudio"),
        "commit": commit.stdout.strip(),
    }
