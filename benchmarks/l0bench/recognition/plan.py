"""Which trials the comparison consists of, which rate each has, and what is owed."""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from l0bench.recognition.trial import TRIAL_SEED, Trial

Row = dict[str, Any]
SIZES, SEEDS = (25, 50, 75), (0, 1, 2)
RATES = (1e-4, 3e-4, 1e-3)
RATE = 3e-4
MAX_NORM = 1.0
"""Of gradients, in all methods. Without it `wrap` has 27 % of the words wrong where it has 24 (75 %, 300 steps)."""
SEARCHED_SIZE = 50
"""A method's rate is chosen at this size, for each number of steps and each objective."""
LONG = 1500
OBJECTIVE = "tokens"
"""With it `wrap` has 23 % of the words wrong where it has 25 without what the decoder expects (75 %, 300 steps)."""
DENSE = Trial(method="dense", label="dense", size=0, steps=0, objective="task", rate=0.0, seed=0)


def cells(methods: Sequence[str], rows: Iterable[Row] = ()) -> list[Row]:
    """Method, size, steps, objective and seed of the whole comparison; without rates.

    - All methods at all sizes, 100 and 300 steps, with `OBJECTIVE`.
    - The objective: `wrap`, both Taylor expansions and random units at half the size, 300 steps.
    - Long schedules: `wrap` and the two others with the fewest nats after 300 steps, once these are there.

    Args:
        methods: Of the comparison.
        rows: What has been measured, to choose the two by.
    """
    found = [(method, size, steps, OBJECTIVE) for steps in (100, 300) for size in SIZES for method in methods]
    compared = [m for m in ("wrap", "taylor-task", "taylor-distill", "random") if m in methods]
    found += [(method, 50, 300, objective) for objective in ("task", "last", "all") for method in compared]
    rows = list(rows)
    for size in (25, 50):
        found += [(method, size, LONG, OBJECTIVE) for method in ("wrap", *best_others(rows, size))]
    fields = ("label", "size", "steps", "objective")
    return [dict(zip(fields, cell, strict=True)) | {"seed": seed} for cell in found for seed in SEEDS]


def best_others(rows: Sequence[Row], size: int, count: int = 2) -> list[str]:
    """The methods but `wrap` with the fewest nats at a size, after 300 steps with `OBJECTIVE`."""
    nats: dict[str, list[float]] = {}
    for row in rows:
        if (
            (row["size"], row["steps"], row["objective"], row.get("max_norm")) == (size, 300, OBJECTIVE, MAX_NORM)
            and "nats" in row
            and row["method"] != "wrap"
        ):
            nats.setdefault(row["method"], []).append(row["nats"])
    return sorted(nats, key=lambda method: statistics.mean(nats[method]))[:count]


def owed(methods: Sequence[str], rows: Sequence[Row]) -> list[Row]:
    """The cells of which there is no row with `MAX_NORM`, at whatever rate."""
    fields = ("label", "size", "steps", "objective", "seed")
    there = {
        tuple(row[name] for name in fields) for row in rows if not row["trial"] and row.get("max_norm") == MAX_NORM
    }
    return [cell for cell in cells(methods, rows) if tuple(cell[name] for name in fields) not in there]


def rate_trials(wished: Trial) -> list[Trial]:
    """Those that choose the rate of a trial: as many for every method."""
    fields = {**wished.row(), "size": SEARCHED_SIZE, "seed": TRIAL_SEED, "trial": True}
    return [Trial(**{**fields, "rate": rate}) for rate in RATES]


def chosen_rate(wished: Trial, rows: Iterable[Row]) -> float | None:
    """The rate with the fewest nats on the validation prompts; None while a trial is owed."""
    fields = ("label", "steps", "objective", "precision", "max_norm")
    found = {
        row["rate"]: row.get("validation_nats", float("inf"))
        for row in rows
        if row["trial"] and row["rate"] in RATES and all(row.get(name) == getattr(wished, name) for name in fields)
    }
    return min(found, key=lambda rate: found[rate]) if len(found) == len(RATES) else None
