"""One trial as a row of results, and how a learning rate is chosen."""

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import timm
import torch
import torch_pruning

from l0bench.digit_pruning.data import batches, scored, trained
from l0bench.digit_pruning.methods import METHODS
from l0bench.digit_pruning.trial import TRIAL_SEEDS, Trial
from l0prune import L0PruneError
from l0prune.measuring import parameters, processor
from l0prune.support import versions

Row = dict[str, Any]
RATES = (3e-4, 1e-3, 3e-3)
SEARCHED_SIZE, SEARCHED_STEPS = 75, 300
"""A method's rate for a network is chosen here, on the validation images, from seeds of its own."""


def dense(network: str, seed: int) -> Trial:
    """The network that is pruned, as a row."""
    return Trial(network=network, method="dense", label="dense", size=0, steps=0, rate=0.0, seed=seed)


def rate_trials(wished: Trial) -> list[Trial]:
    """As many for every method."""
    searched = replace(wished, size=SEARCHED_SIZE, steps=SEARCHED_STEPS, trial=True)
    return [replace(searched, rate=rate, seed=seed) for seed in TRIAL_SEEDS for rate in RATES]


def chosen_rate(wished: Trial, rows: Iterable[Row]) -> float | None:
    """That with the smallest mean loss on the validation images; None while a trial is owed."""
    found: dict[float, dict[int, float]] = {rate: {} for rate in RATES}
    for row in rows:
        if row["trial"] and (row["network"], row["label"]) == (wished.network, wished.label) and row["rate"] in RATES:
            found[row["rate"]][row["seed"]] = row.get("validation_loss", float("inf"))
    if any(losses.keys() < set(TRIAL_SEEDS) for losses in found.values()):
        return None
    # One seed alone may mislead: of two rates its losses lie a third apart either way.
    return min(found, key=lambda rate: sum(found[rate].values()))


def run_row(wish: Row) -> Row:
    """Prune, train, score.

    Returns:
        The wish and its figures; `failed` in their place where an error of the library's ended it.
    """
    trial = Trial(**{name: wish[name] for name in Trial.__dataclass_fields__})
    place = {"processor": processor(torch.device("cpu")), "threads": torch.get_num_threads()}
    installed = versions() | {"torch-pruning": torch_pruning.__version__, "timm": timm.__version__}
    try:
        figures = _run(trial)
    except L0PruneError as error:
        figures = {"failed": str(error)}
    return wish | figures | place | {"versions": installed}


def _run(trial: Trial) -> Row:
    before = trained(trial.network, trial.seed)
    torch.manual_seed(trial.seed)
    began = time.perf_counter()
    if trial.method == "dense":
        network, facts = before, {}
    else:
        network, facts = METHODS[trial.method](before, trial, batches(trial.seed + 1000))
    facts["seconds"] = round(time.perf_counter() - began, 2)
    facts["parameters"] = parameters(network)
    facts["budget"] = int(round(parameters(before) * (1 - trial.size / 100), 6))
    facts["validation_accuracy"], facts["validation_loss"] = scored(network, "validation")
    if not trial.trial:
        facts["accuracy"], facts["test_loss"] = scored(network, "test")
    return facts
