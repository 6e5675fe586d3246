"""Runs in one process and in two: killed at random moments and resumed they end with the same bits."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked_runs import Forked, Forks

CHANGES = (
    ("steps = 10", "steps = 30"),
    ("learning_rate = 0.3", "learning_rate = 0.5\n[compaction]\nevery_steps = 2\npatience = 1\nclosed_below = 0.4"),
    ("log_every = 1", "log_every = 1\ncheckpoint_minutes = 0.0"),
)


@pytest.fixture
def config(toml: Callable[..., Path]) -> Path:
    return toml(*CHANGES)


def launch(forks: Forks, size: int, arguments: list[object], folder: Path, last: Sequence[object] = ()) -> list[Forked]:
    """As torchrun does; `last` are more arguments of the last process."""
    environ: dict[str, Any] = {}
    if size > 1:
        environ = {"WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": forks.port}
    return [
        forks.start(
            [*arguments, *(last if rank == size - 1 else ())],
            folder / f"log{rank}",
            {**environ, "RANK": rank, "LOCAL_RANK": rank} if environ else {},
        )
        for rank in range(size)
    ]


def logs(processes: list[Forked]) -> str:
    return "".join(process.log.read_text() for process in processes if process.log.exists())


def finish(processes: list[Forked]) -> None:
    codes = [process.wait() for process in processes]
    assert codes == [0] * len(processes), logs(processes)


@pytest.mark.parametrize(("size", "least_kills"), [(1, 8), (2, 4)])
def test_killed_at_random_moments_and_resumed(
    size: int, least_kills: int, forks: Forks, bench, config: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    begun = time.monotonic()
    finish(launch(forks, size, bench.arguments("--out", whole, config=config), tmp_path))
    lasted = time.monotonic() - begun
    report = json.loads((whole / "report.json").read_text())
    assert report["compactions"]
    chance, kills, attempt = random.Random(size), 0, 0
    while kills < least_kills:
        attempt += 1
        run, extra = tmp_path / f"run{attempt}", ()
        while not (run / "report.json").exists():
            processes = launch(forks, size, bench.arguments("--out", run, *extra, config=config), tmp_path)
            time.sleep(chance.uniform(0, lasted))
            if kills < least_kills and not (run / "report.json").exists():
                # One process dies; torchrun then asks the others to end.
                chance.shuffle(processes)
                processes[0].send(signal.SIGKILL)
                for other in processes[1:]:
                    other.send(signal.SIGTERM)
            codes = [process.wait() for process in processes]
            kills += -signal.SIGKILL in codes
            # The machine may have become faster since.
            lasted *= 1 if -signal.SIGKILL in codes else 0.8
            # The others had ended, were told to, or found that somebody is gone.
            assert {*codes} <= {0, 2, -signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM}, logs(processes)
            extra = ("--resume",) if (run / "config.toml").exists() else ()
        assert (run / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
        again = json.loads((run / "report.json").read_text())
        for key in ("compactions", "kept_units", "distill_loss_final", "distill_loss_after_removal"):
            assert again[key] == report[key]


def curve(run: Path) -> np.ndarray:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return np.array([[row["loss"], row["gradient_norm"], row.get("sparsity") or 0.0] for row in rows])


def test_two_processes_have_the_loss_curve_of_one(forks: Forks, bench, toml, tmp_path: Path) -> None:
    two = toml(*CHANGES, name="two.toml")
    halved = ("batch_seconds = 5.0", "batch_seconds = 2.5")
    micro = (("[joint]", "[joint]\nmicro_batches = 2"), ("[further]", "[further]\nmicro_batches = 2"))
    one = toml(*CHANGES, halved, *micro, name="one.toml")
    finish(launch(forks, 2, bench.arguments("--out", tmp_path / "two", config=two), tmp_path))
    finish(launch(forks, 1, bench.arguments("--out", tmp_path / "one", config=one), tmp_path))
    np.testing.assert_allclose(curve(tmp_path / "two"), curve(tmp_path / "one"), rtol=2e-3, atol=1e-5)
    reports = [json.loads((tmp_path / name / "report.json").read_text()) for name in ("two", "one")]
    assert reports[0]["kept_units"] == reports[1]["kept_units"]
    assert reports[0]["compactions"] == reports[1]["compactions"]
    # The held-out batches are shared out.
    assert reports[0]["losses_final"] == pytest.approx(reports[1]["losses_final"], rel=1e-2)


def test_torchrun(bench, config: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = map(str, bench.arguments("--out", tmp_path / "run", "--json", config=config))
    done = subprocess.run(
        [*command, "-m", "l0prune_cli", *arguments], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert (
        json.loads(done.stdout)["params_after"]
        == json.loads((tmp_path / "run" / "report.json").read_text())["params_after"]
    )


def test_processes_fail_together_with_the_first_error(forks: Forks, bench, toml, tmp_path: Path) -> None:
    """Bad input is said once."""
    config = toml(('precision = "float32"', 'precision = "float31"'))
    processes = launch(forks, 2, bench.arguments("--out", tmp_path / "run", config=config), tmp_path)
    assert [process.wait() for process in processes] == [2, 2]
    assert logs(processes) == ("l0prune: error: unknown precision (got float31, expected auto, float32, bfloat16)\n")
    assert not (tmp_path / "run").exists()


def test_processes_that_see_different_data_are_told(forks: Forks, bench, config: Path, tmp_path: Path) -> None:
    arguments = bench.arguments("--out", tmp_path / "run", config=config)
    few = [word for number in range(4) for word in ("--data", bench.clips / f"clip{number}.wav")]
    processes = launch(forks, 2, arguments, tmp_path, few)
    assert [process.wait() for process in processes] == [2, 2]
    hint = "give every process the same files and settings"
    assert logs(processes) == f"l0prune: error: processes see different data or settings: ranks 0 and 1; {hint}\n"
    assert not (tmp_path / "run").exists()


def test_a_decoding_process_that_dies_is_named(forks: Forks, bench, toml, finished, tmp_path: Path) -> None:
    config = toml(("steps = 10", "steps = 2000"), base=bench.settings_with_worker)
    (process,) = launch(forks, 1, bench.arguments("--out", tmp_path / "run", config=config), tmp_path)
    children = Path(f"/proc/{process.number}/task/{process.number}/children")
    while not (tmp_path / "run" / "metrics.jsonl").exists():
        time.sleep(0.01)
    for child in children.read_text().split():
        os.kill(int(child), signal.SIGKILL)
    assert process.wait() == 2
    (line,) = [line for line in logs([process]).splitlines() if "error" in line]
    assert line.startswith("l0prune: error: a process that ")
    assert " died" in line
    # Two hear of it, the connection and torch's handler of signals; who is first says which processes should be fewer.
    assert line.endswith(
        ("let fewer processes read data, then go on with --resume", "lower speech.workers, then go on with --resume")
    )
    assert "Traceback" not in logs([process])
