"""How long something takes, beside something else: interleaved, warmed up, with the uncertainty of the ratio.

Legend: R rounds.
"""

import ctypes
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

Run = Callable[[], object]

_SETTLED = 0.05
"""Warm-up ends when three runs bring no more than this."""
_MOST_WARMUP_RUNS = 30
_SHORTEST_SECONDS = 2e-3
"""What is shorter is repeated within one timing, so that the clock does not matter."""
_RESAMPLES = 2_000
_PAUSE_SECONDS = 0.02
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Numbers of glibc's settings, from malloc.h."""
_TRIM_THRESHOLD, _MMAP_MAX = 2**26, 2**16
"""glibc's defaults; the threshold as it is once a program has freed large buffers."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Times of one contender, round by round."""

    seconds: np.ndarray
    """(R,)"""
    warmup_runs: int
    joules: np.ndarray | None = None
    """(R,) taken by one run; None where that is not measured."""

    @property
    def median(self) -> float:
        """Seconds."""
        return float(np.median(self.seconds))

    @property
    def p95(self) -> float:
        """Seconds that one run in twenty exceeds."""
        return float(np.percentile(self.seconds, 95))

    @property
    def spread(self) -> float:
        """Interquartile range as a share of the median."""
        low, high = np.percentile(self.seconds, [25, 75])
        return float((high - low) / self.median)


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times faster one contender is than another."""

    median: float
    low: float
    """Lower end of the 95 % confidence interval."""
    high: float


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Have glibc keep the memory that is freed; elsewhere nothing changes.

    By default it depends on the heap's layout, and so on the process, whether every run gives its large buffers back to
    the system and faults all their pages in anew, which can take as long as half of what is to be measured. The
    allocators of servers keep them.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        yield
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        mallopt(_M_MMAP_MAX, _MMAP_MAX)
        mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD)
        # What was kept goes back now.
        ctypes.CDLL(None).malloc_trim(0)


@freed_memory_kept()
def interleave(
    runs: Mapping[str, Run],
    *,
    seconds: float,
    least_rounds: int = 7,
    most_rounds: int = 500,
    device: str = "cpu",
    joules: Callable[[], float] | None = None,
) -> dict[str, Timing]:
    """Time contenders in turns, so that drift of the machine meets all alike.

    Args:
        runs: What to time, by name.
        seconds: How long to go on, warm-up aside.
        least_rounds: Rounds to make even if that takes longer.
        most_rounds: Rounds after which to stop early.
        device: The torch device they run on; a GPU is synchronised and timed with events.
        joules: Reads the energy taken so far.
    """
    clock = _cuda_seconds if torch.device(device).type == "cuda" else _wall_seconds
    warm = {name: _warm_up(run, clock) for name, run in runs.items()}
    names, times = list(runs), {name: [] for name in runs}
    energies: dict[str, list[float]] = {name: [] for name in runs}
    begun = time.perf_counter()
    for number in range(most_rounds):
        if number >= least_rounds and time.perf_counter() - begun > seconds:
            break
        # Each starts a round in its turn: whoever runs after the largest one finds a cold cache.
        first = number % len(names)
        for name in [*names[first:], *names[:first]]:
            # Threads of the one before spin for a moment before they sleep.
            time.sleep(_PAUSE_SECONDS)
            before = joules() if joules else 0.0
            times[name].append(clock(runs[name], warm[name][1]))
            if joules:
                energies[name].append((joules() - before) / warm[name][1])
    return {
        name: Timing(
            seconds=np.array(times[name]),
            warmup_runs=warm[name][0],
            joules=np.array(energies[name]) if joules else None,
        )
        for name in names
    }


def speedup(slow: Timing, fast: Timing) -> Ratio:
    """The ratio of two contenders of one `interleave`, from the ratios within rounds, by bootstrap."""
    ratios = slow.seconds / fast.seconds
    draws = np.random.default_rng(0).choice(ratios, (_RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return Ratio(median=float(np.median(ratios)), low=float(low), high=float(high))


def _warm_up(run: Run, clock: Callable[[Run, int], float]) -> tuple[int, int]:
    """Run until it gets no faster; returns the number of runs, and how often to repeat one for a timing."""
    times: list[float] = []
    while len(times) < _MOST_WARMUP_RUNS:
        times += [clock(run, 1) for _ in range(3)]
        if len(times) > 3 and min(times[-3:]) > (1 - _SETTLED) * min(times[:-3]):
            break
    return len(times), max(1, round(_SHORTEST_SECONDS / max(min(times), 1e-9)))


def _wall_seconds(run: Run, times: int) -> float:
    begun = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - begun) / times


def _cuda_seconds(run: Run, times: int) -> float:
    begun, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    begun.record()
    for _ in range(times):
        run()
    ended.record()
    torch.cuda.synchronize()
    return begun.elapsed_time(ended) / 1000 / times
