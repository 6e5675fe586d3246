"""Timing in turns: who runs when, when warm-up ends, what the interval of a ratio says."""

import platform
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from l0prune.measuring import timing
from l0prune.measuring.timing import Timing, interleave, speedup


class Clock:
    """Time that passes only as runs say."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.ran = 0.0, []
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(timing.time, "sleep", lambda seconds: None)

    def make(self, name: str, seconds):
        """A run that takes the next of `seconds`, the last one for good."""
        left = list(seconds)

        def run() -> None:
            self.now += left.pop(0) if len(left) > 1 else left[0]
            self.ran.append(name)

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_contenders_take_turns_and_the_first_place_rotates(clock: Clock) -> None:
    runs = {name: clock.make(name, [1.0]) for name in "abc"}
    times = interleave(runs, seconds=0, least_rounds=4)
    assert clock.ran[-12:] == list("abcbcacababc")
    assert all(len(times[name].seconds) == 4 for name in "abc")


def test_warm_up_ends_when_nothing_gets_faster(clock: Clock) -> None:
    times = interleave({"a": clock.make("a", [9, 8, 7, 5, 4, 3, 1, 1, 1, 1])}, seconds=0, least_rounds=3)
    assert times["a"].warmup_runs == 12
    assert times["a"].seconds.tolist() == pytest.approx([1, 1, 1])


def test_warm_up_of_what_never_settles_ends(clock: Clock) -> None:
    times = interleave({"a": clock.make("a", 0.5 ** np.arange(200.0))}, seconds=0, least_rounds=1)
    assert times["a"].warmup_runs == 30


def test_drift_that_meets_all_alike_cancels_in_the_ratio(clock: Clock) -> None:
    # Slower from run to run, also within a round: who comes first has the better of it, in turns.
    drift = np.linspace(1, 3, 400)
    runs = {"slow": clock.make("slow", 6 * drift[::2]), "fast": clock.make("fast", 2 * drift[1::2])}
    times = interleave(runs, seconds=1e9, most_rounds=50)
    ratio = speedup(times["slow"], times["fast"])
    assert ratio.median == pytest.approx(3, rel=0.02)
    assert ratio.low <= ratio.median <= ratio.high


def test_short_runs_are_repeated_within_a_timing(clock: Clock) -> None:
    times = interleave({"a": clock.make("a", [1e-5])}, seconds=0, least_rounds=2)
    assert times["a"].seconds.tolist() == pytest.approx([1e-5, 1e-5])
    assert len(clock.ran) == 6 + 2 * 200


def test_it_stops_when_the_time_is_over(clock: Clock) -> None:
    times = interleave({"a": clock.make("a", [1.0])}, seconds=20, least_rounds=3)
    assert 20 <= len(times["a"].seconds) <= 22


@given(st.floats(0.2, 5), st.floats(0, 0.2), st.integers(0, 1000))
def test_the_interval_of_a_ratio_covers_it(ratio: float, noise: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    slow, fast = (scale * np.exp(noise * generator.standard_normal(400)) for scale in (ratio, 1.0))
    found = speedup(Timing(seconds=slow, warmup_runs=0), Timing(seconds=fast, warmup_runs=0))
    width = 6 * noise * np.sqrt(2) / np.sqrt(400)
    assert abs(np.log(found.median / ratio)) <= width + 1e-9
    assert found.low <= found.median <= found.high
    assert np.log(found.high / found.low) <= 2 * width + 1e-9


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings of glibc")
def test_runs_that_are_timed_fault_no_pages_in_anew() -> None:
    """In a process of its own: in others it depends on their past."""
    program = """
import contextlib, resource, torch
from l0prune.measuring import freed_memory_kept

def faults_of_a_run():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24).sum()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

for kept in (contextlib.nullcontext(), freed_memory_kept()):
    with kept:
        print(min(faults_of_a_run() for _ in range(12)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    before, kept = map(int, done.stdout.split())
    # 64 MiB are 16,384 pages of 4 KiB, or 32 huge ones.
    assert before >= 32
    assert kept < 16


def test_statistics_of_known_times() -> None:
    times = Timing(seconds=np.arange(1.0, 102.0), warmup_runs=0)
    assert times.median == 51
    assert times.p95 == 96
    assert times.spread == pytest.approx(50 / 51)
