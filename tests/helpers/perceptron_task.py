"""A task for compress() that takes a moment: a perceptron with one group, and an observer that remembers."""

import itertools
import signal
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

import l0prune

SETTINGS: dict[str, Any] = {
    "target_sparsity": 0.6,
    "precision": "float32",
    "device": "cpu",
    "log_every": 1,
    "joint": {"steps": 30, "learning_rate": 1e-2},
    "further": {"steps": 8, "learning_rate": 1e-2},
    "controller": {"learning_rate": 0.2, "warmup_steps": 5},
}


WIDTH = 40


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(10, WIDTH), nn.Dropout(0.1), nn.ReLU(), nn.Linear(WIDTH, 3))


class Fit(l0prune.Objective):
    def forward(self, batch: tuple[Tensor, Tensor]) -> l0prune.Losses:
        inputs, labels = batch
        return l0prune.Losses(total=nn.functional.cross_entropy(self.student(inputs), labels), amount=len(inputs))


def batches(position: int) -> Iterator[tuple[Tensor, Tensor]]:
    for number in itertools.count(position):
        inputs = torch.randn(32, 10, generator=torch.Generator().manual_seed(number))
        yield inputs, inputs[:, :3].argmax(1)


def make_task(**changes: Any) -> l0prune.Task:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student = network()
    index = l0prune.consecutive(WIDTH)
    ends = (
        ("0.weight", 0, l0prune.Role.PRODUCES),
        ("0.bias", 0, l0prune.Role.PRODUCES),
        ("3.weight", 1, l0prune.Role.CONSUMES),
    )
    places = tuple(l0prune.Place(tensor=tensor, dim=dim, role=role, index=index) for tensor, dim, role in ends)
    inputs = torch.randn(4, 10, generator=torch.Generator().manual_seed(1))
    task: dict[str, Any] = {
        "objective": Fit(student),
        "groups": [l0prune.PruneGroup(name="hidden", kind="unit", units=WIDTH, places=places)],
        "batches": batches,
        "observe": lambda model: model(inputs),
        "evaluation": list(itertools.islice(batches(10**6), 2)),
    }
    return l0prune.Task(**{**task, **changes})


class Watch(l0prune.Observer):
    """Remembers what it saw; interrupts at a step."""

    def __init__(self, stop_at: tuple[str, int] | None = None) -> None:
        self.stop_at, self.records, self.stages, self.notes = stop_at, [], [], []
        self.at_the_cut: dict[str, Any] = {}

    def prepared(self, task, gated, config, folder) -> None:
        self.gated = gated

    def stage_begins(self, name, steps, done) -> None:
        self.stages.append((name, steps, done))

    def record(self, record) -> None:
        self.records.append(record)
        if (record.stage, record.step) == self.stop_at:
            signal.raise_signal(signal.SIGTERM)

    def note(self, text) -> None:
        self.notes.append(text)
        self.at_the_cut = {"kept": self.gated.gates.select(), "scores": self.gated.gates.log_alpha.detach().clone()}
