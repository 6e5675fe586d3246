"""Runs of a second: a few steps with compaction, whose network takes as long as its widths say."""

import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import l0prune

_UNITS, _BLOCKS = 12, 2
SETTINGS: dict[str, Any] = {
    "target_sparsity": 0.6,
    "precision": "float32",
    "device": "cpu",
    "log_every": 2,
    "checkpoint_minutes": 0.0,
    "joint": {"steps": 6, "learning_rate": 1e-2, "micro_batches": 2},
    "further": {"steps": 2, "learning_rate": 1e-2, "micro_batches": 2},
    "controller": {"kind": "projected", "learning_rate": 0.5, "warmup_steps": 2},
    "compaction": {"every_steps": 2, "patience": 1, "closed_below": 0.3},
}
LATENCY: dict[str, Any] = {
    "metric": "latency",
    "target_sparsity": None,
    "target_speedup": 1.12,
    "gates": {"round_to": 1},
}
_TIMES = ("_seconds", "seconds_left", "amount_per_second", "peak_memory", "run_directory")
"""What differs between runs that are the same."""


class Clock:
    """Time that passes only as `Block` says, in steps whose sums are exact."""

    def __init__(self) -> None:
        self.now = 0.0

    def pause(self, seconds: float) -> None:
        """Nothing is waited for."""
        self.now += math.ceil(seconds * 2**14) * 2**-14

    def __deepcopy__(self, memo: dict[int, Any]) -> "Clock":
        return self


class Block(nn.Module):
    """A residual block whose time is affine in its width."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.up, self.down, self.clock = nn.Linear(6, _UNITS), nn.Linear(_UNITS, 6), clock

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (B, 6) to (B, 6)."""
        self.clock.now += (32 + self.up.out_features) * 2**-14
        return self.down(self.up(x).relu())


class Network(nn.Module):
    """Blocks upon each other."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(clock) for _ in range(_BLOCKS))
        self.clock = clock

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: (B, 6) to (B, 6)."""
        self.clock.now += 2**-8
        for block in self.blocks:
            x = x + block(x)
        return x


class Fit(l0prune.Objective):
    """The student learns the sign of its inputs' running sums."""

    def forward(self, batch: Tensor) -> l0prune.Losses:
        """Args: batch: (B, 6)."""
        return l0prune.Losses(total=(self.student(batch) - batch.cumsum(1).sign()).square().mean(), amount=len(batch))


def batches(position: int) -> Iterator[Tensor]:
    """From a batch number on."""
    while True:
        yield torch.randn(8, 6, generator=torch.Generator().manual_seed(position))
        position += 1


def build() -> Network:
    """The dense network; time stands still unless it runs, and a pause is over at once."""
    clock = Clock()
    time.perf_counter, time.sleep = lambda: clock.now, clock.pause
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Network(clock)


def task() -> l0prune.Task:
    """One for each run."""
    groups = []
    for number in range(_BLOCKS):
        ends = (("up.weight", 0), ("up.bias", 0), ("down.weight", 1))
        places = tuple(
            l0prune.Place(
                tensor=f"blocks.{number}.{tensor}",
                dim=dim,
                role=l0prune.Role.CONSUMES if dim else l0prune.Role.PRODUCES,
                index=l0prune.consecutive(_UNITS),
            )
            for tensor, dim in ends
        )
        groups.append(l0prune.PruneGroup(name=f"blocks.{number}", kind="unit", units=_UNITS, places=places))
    inputs = next(batches(10**6))
    return l0prune.Task(
        objective=Fit(build()),
        groups=groups,
        batches=batches,
        observe=lambda model: model(inputs),
        evaluation=[next(batches(10**6 + 1))],
    )


def begin(folder: Path, **settings: Any) -> None:
    """Make a run in `folder`."""
    _compress(folder, settings)


def _compress(folder: Path, settings: Mapping[str, Any] = SETTINGS, **more: Any) -> None:
    chosen = {key: value for key, value in {**SETTINGS, **settings}.items() if value is not None}
    l0prune.compress(task(), settings=chosen, out=folder, **{"observer": l0prune.Observer(), **more})


def go_on(folder: Path, **settings: Any) -> None:
    """Bring what is there to its end: resumed if it was begun, begun if not."""
    if not (folder / "report.json").exists():
        _compress(folder, settings, resume=(folder / "config.toml").exists())


class _Stop(l0prune.Observer):
    def record(self, record: l0prune.Record) -> None:
        """Stop in the middle."""
        if (record.stage, record.step) == ("joint", 4):
            raise KeyboardInterrupt


def interrupt(folder: Path) -> None:
    """Make a run that ends in the middle."""
    try:
        _compress(folder, observer=_Stop())
    except KeyboardInterrupt:
        return
    raise AssertionError("the run was not interrupted")


def copied(source: Path, folder: Path) -> None:
    """A run in another place."""
    shutil.copytree(source, folder)


def facts(folder: Path) -> dict[str, Any]:
    """What two runs that are the same agree in, to the bit."""
    report = json.loads((folder / "report.json").read_text())
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "weights": (folder / "model.safetensors").read_bytes(),
        "plan": json.loads((folder / "model.json").read_text())["plan"],
        "metrics": [_timeless(row) for row in rows],
        "files": sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.suffix != ".lock"),
        **{f"report, {key}": value for key, value in _timeless(report).items()},
    }


def _timeless(content: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if not any(word in key for word in _TIMES)}
