"""A scenario in a process that was started, and not forked: `fresh.py MATERIALS NAME FOLDER CALLS`.

Its calls are counted as in a forked process, so that the two can be compared. The folder is prepared already.
"""

import json
import sys
import warnings
from pathlib import Path

# Here, before a scenario takes its cache elsewhere: it writes a list of fonts to the first cache that it finds.
import matplotlib.font_manager  # noqa: F401
import torch

from l0bench.survival.file_calls import FileCalls
from l0bench.survival.scenarios import Materials


def play(materials: Path, name: str, folder: Path, calls: Path) -> None:
    """Play a scenario undisturbed.

    Args:
        materials: Where they were made.
        name: Of the scenario.
        folder: Where it plays.
        calls: The file for the list of its file-system calls.
    """
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    scenario = Materials(materials).scenarios()[name]
    counted = FileCalls(folder)
    counted.install()
    scenario.act(folder)
    calls.write_text(json.dumps(counted.made))


if __name__ == "__main__":
    play(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
