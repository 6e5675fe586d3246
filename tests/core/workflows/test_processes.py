"""The same batches in any number of processes give the same network: the same plan, and weights but for rounding."""

import itertools
import json
import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import l0prune
from l0prune.workflows import Observer

Run = Callable[[int, Path, str], Path]
WIDTH, MICRO_BATCHES = 24, 8
SETTINGS: dict[str, Any] = {
    "target_sparsity": 0.6,
    "precision": "float32",
    "device": "cpu",
    "log_every": 4,
    "joint": {"steps": 30, "learning_rate": 1e-2, "micro_batches": MICRO_BATCHES},
    "further": {"steps": 4, "learning_rate": 1e-2, "micro_batches": MICRO_BATCHES},
    "controller": {"learning_rate": 0.5, "warmup_steps": 4},
    "compaction": {"every_steps": 2, "patience": 1, "closed_below": 0.45},
}


class Fit(l0prune.Objective):
    def forward(self, batch: Tensor) -> l0prune.Losses:
        error = (self.student(batch) - batch[:, :3].cumsum(1).sign()).square().mean()
        return l0prune.Losses(total=error, parts={"error": error}, amount=len(batch))


def batches(position: int) -> Iterator[Tensor]:
    for number in itertools.count(position):
        yield torch.randn(4, 10, generator=torch.Generator().manual_seed(number))


def task() -> l0prune.Task:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student = nn.Sequential(nn.Linear(10, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 3))
    ends = (("0.weight", 0, "PRODUCES"), ("0.bias", 0, "PRODUCES"), ("2.weight", 1, "CONSUMES"))
    places = tuple(
        l0prune.Place(tensor=tensor, dim=dim, role=l0prune.Role[role], index=l0prune.consecutive(WIDTH))
        for tensor, dim, role in ends
    )
    inputs = next(batches(10**6))
    return l0prune.Task(
        objective=Fit(student),
        groups=[l0prune.PruneGroup(name="hidden", kind="unit", units=WIDTH, places=places)],
        batches=batches,
        observe=lambda model: model(inputs),
        evaluation=list(itertools.islice(batches(10**6), 8)),
    )


def forked(work: Callable[[], object], log: Path) -> int:
    """The number of a process that does it; what goes wrong is written to `log`."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            log.write_text(traceback.format_exc())
        finally:
            os._exit(code)
    return child


def run_in(size: int, folder: Path, kind: str) -> Path:
    """A run in `size` processes, with a controller of this kind; the folder that it leaves."""
    settings = {**SETTINGS, "controller": {**SETTINGS["controller"], "kind": kind}}
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": place.getsockname()[1], "WORLD_SIZE": size}

    def process(rank: int) -> None:
        torch.set_num_threads(1)
        os.environ.update({name: str(value) for name, value in {**group, "RANK": rank}.items()})
        l0prune.compress(task(), settings=settings, out=folder / "run", observer=Observer())

    folder.mkdir()
    children = [forked(lambda rank=rank: process(rank), folder / f"log{rank}") for rank in range(size)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0] * size, [log.read_text() for log in folder.glob("log*")]
    return folder / "run"


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def begin() -> Iterator[Run]:
    """`run_in`, from a process of its own: one in which autograd has begun threads cannot be forked, and any test may
    have begun them here."""
    with subprocess.Popen(
        [sys.executable, "-P", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None

        def run(size: int, folder: Path, kind: str) -> Path:
            server.stdin.write(json.dumps([size, str(folder), kind]) + "\n")  # type: ignore[union-attr]
            server.stdin.flush()  # type: ignore[union-attr]
            assert server.stdout.readline() == "done\n", "what went wrong stands above"  # type: ignore[union-attr]
            return folder / "run"

        yield run
        server.stdin.close()


@pytest.fixture(scope="module")
def alone(begin: Run, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A run in one process, by the kind of controller."""
    return cache(lambda kind: begin(1, tmp_path_factory.mktemp("alone") / kind, kind))


@pytest.mark.parametrize("kind", ["lagrangian", "projected"])
@pytest.mark.parametrize("size", [2, 4, pytest.param(8, marks=pytest.mark.slow)])
def test_any_number_of_processes_gives_the_same_plan_and_weights(
    size: int, kind: str, alone: Callable[[str], Path], begin: Run, tmp_path: Path
) -> None:
    first_run, run = alone(kind), begin(size, tmp_path / "several", kind)
    plans, reports = (
        [json.loads((folder / name).read_text()) for folder in (first_run, run)]
        for name in ("model.json", "report.json")
    )
    assert plans[0]["plan"] == plans[1]["plan"]
    assert reports[0]["compactions"]
    assert reports[0]["compactions"] == reports[1]["compactions"]
    first, second = (load_file(folder / "model.safetensors") for folder in (first_run, run))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=1e-5, atol=1e-5)
    assert reports[1]["losses_final"]["error"] == pytest.approx(reports[0]["losses_final"]["error"], rel=1e-4)
    # Every line is of the same batches.
    for one, other in zip(rows_of(first_run), rows_of(run), strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert other["parts"] == pytest.approx(one["parts"], rel=1e-4)


def test_the_steps_of_the_test_change_the_weights(alone: Callable[[str], Path]) -> None:
    """Were the law of weights that nothing trained, it would say nothing."""
    run = alone("lagrangian")
    report = json.loads((run / "report.json").read_text())
    dense = task().objective.student.state_dict()["0.weight"]
    kept = load_file(run / "model.safetensors")["0.weight"]
    assert len(kept) == report["kept_units"]["hidden"]["kept"] < WIDTH
    assert min((dense - row).abs().max() for row in kept) > 1e-3


if __name__ == "__main__":
    for line in sys.stdin:
        size, folder, kind = json.loads(line)
        run_in(size, Path(folder), kind)
        print("done", flush=True)
