"""Begin a small run and stop it halfway, then go on with a copy of it; both are kept for `test_older_run.py`.

    PYTHONPATH=CHECKOUT python begin.py FOLDER

CHECKOUT is that of an older commit, whose `l0prune` makes the run; see README.md. The file works with that one and with
the present one, so it takes names that both have.
"""

import itertools
import json
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import l0prune

WIDTH = 16
SETTINGS: dict[str, Any] = {
    "target_sparsity": 0.5,
    "precision": "float32",
    "device": "cpu",
    "log_every": 1,
    "joint": {"steps": 60, "learning_rate": 1e-2},
    "further": {"steps": 10, "learning_rate": 1e-2},
    "controller": {"learning_rate": 0.3, "warmup_steps": 5},
    "compaction": {"every_steps": 5, "patience": 2, "closed_below": 0.3, "least_share": 0.05},
}
STOP_AT = 45


def network() -> nn.Sequential:
    """Dropout, so that states of random generators matter."""
    return nn.Sequential(nn.Linear(10, WIDTH), nn.Dropout(0.1), nn.ReLU(), nn.Linear(WIDTH, 3))


class Fit(l0prune.Objective):
    """Which of the first three inputs is the largest."""

    def forward(self, batch: tuple[Tensor, Tensor]) -> l0prune.Losses:
        inputs, labels = batch
        return l0prune.Losses(total=nn.functional.cross_entropy(self.student(inputs), labels), amount=len(inputs))


def batches(position: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The same from any position on."""
    for number in itertools.count(position):
        inputs = torch.randn(32, 10, generator=torch.Generator().manual_seed(number))
        yield inputs, inputs[:, :3].argmax(1)


def make_task() -> l0prune.Task:
    """The run's task; what its student begins with matters to the first half alone."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student = network()
    made, read = l0prune.Role.PRODUCES, l0prune.Role.CONSUMES
    ends = (("0.weight", 0, made), ("0.bias", 0, made), ("3.weight", 1, read))
    index = l0prune.consecutive(WIDTH)
    places = tuple(l0prune.Place(tensor=tensor, dim=dim, role=role, index=index) for tensor, dim, role in ends)
    inputs = torch.randn(4, 10, generator=torch.Generator().manual_seed(1))
    return l0prune.Task(
        objective=Fit(student),
        groups=[l0prune.PruneGroup(name="hidden", kind="unit", units=WIDTH, places=places)],
        batches=batches,
        observe=lambda model: model(inputs),
        evaluation=list(itertools.islice(batches(10**6), 2)),
    )


class Stop(l0prune.Observer):
    """Ends the run as a signal from outside would."""

    def record(self, record: l0prune.Record) -> None:
        if (record.stage, record.step) == ("joint", STOP_AT):
            signal.raise_signal(signal.SIGTERM)


def made_by() -> dict[str, str]:
    """What sums depend on, to the bit, where there is one thread."""
    return {"torch": torch.__version__, "instructions": torch.backends.cpu.get_cpu_capability()}


def main(folder: Path) -> None:
    """Begin, copy, go on."""
    torch.set_num_threads(1)
    with suppress(l0prune.Interrupted):
        l0prune.compress(make_task(), settings=SETTINGS, out=folder / "run", observer=Stop())
    shutil.copytree(folder / "run", folder / "whole")
    report = l0prune.compress(make_task(), settings=SETTINGS, out=folder / "whole", resume=True)
    shutil.copy(folder / "whole" / "model.safetensors", folder / "weights.safetensors")
    facts = {
        **made_by(),
        "compactions": [cut["step"] for cut in report.compactions],
        "kept": report.kept_units["hidden"]["kept"],
        "loss": report.distill_loss_final,
    }
    (folder / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")
    shutil.rmtree(folder / "whole")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
