"""Latency as a polynomial of kept counts, measured block by block on the machine at hand.

A block (a convolution with its norm, an attention, a feed-forward network) takes a time that is nearly affine in the
products of kept counts that its matrix products have. So a few pruned copies with random widths, timed block by block
as they run, give the coefficients; blocks of one shape share them. The sum is a `SizeModel` in femtoseconds: its
expectation under the gates is exact and differentiable, and everything that works for parameters works for time.

Legend: P plans, B blocks, F features of a block.
"""

import hashlib
import itertools
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from l0prune.discovery.traced import Trace
from l0prune.groups import PruneGroup
from l0prune.measuring.benchmark import processor
from l0prune.measuring.timing import freed_memory_kept
from l0prune.size.latency.samples import Observe, Samples
from l0prune.size.macs import mac_monomials
from l0prune.size.polynomial import Monomial, SizeModel, with_switches
from l0prune.support.files import write_json
from l0prune.support.modules import is_inside, model_shapes
from l0prune.workflows.results import versions

VERSION = 4
TICKS = 10**15
"""A second in the model's units: so small that the coefficient of a fourth power is a whole number too."""
_PLANS, _HELD_OUT = 30, 10
_TRIALS = 6
"""Plans that are timed with each of several alignments."""
_ALIGNMENTS = (1, 8, 32)
_PAYS = 0.03
"""An alignment must save this share of the time: it leaves less choice."""
_ROBUST_ROUNDS, _CLOSE = 6, 0.01
POOR = 0.2
"""Error of a fit that is not worth much: something else ran on the machine."""
_ATTEMPTS = 2


@dataclass(frozen=True, kw_only=True)
class LatencyModel:
    """A latency for every plan."""

    size: SizeModel
    """In femtoseconds."""
    dense_ms: float
    """Measured, of the whole dense model."""
    error: float
    """Median relative error on plans that the coefficients were not fitted to, whole models measured."""
    round_to: int
    """The multiple of channels that widths are to keep to: the coefficients are those of such widths."""


def measure_latency(
    model: nn.Module,
    groups: Sequence[PruneGroup],
    observe: Observe,
    found: Trace,
    *,
    deploy: Callable[[nn.Module], nn.Module] | None = None,
    round_to: int | None = None,
    cache: Sequence[Path] = (),
    seed: int = 0,
) -> LatencyModel:
    """Fit a latency model by running pruned copies of a model.

    Args:
        model: The dense model, without gates, on the device that matters; it is left as it is.
        groups: Its prune groups.
        observe: Runs a model on the input whose latency matters.
        found: `trace` of the model on that input.
        deploy: Gives a model the form in which it will run, with the same block names.
        round_to: What widths are multiples of; by default what pays on the device.
        cache: Files to read the coefficients from, and to write them to; the first that fits is used.
        seed: Of the random plans.
    """
    device = next(model.parameters()).device
    key = _key(model, groups, found, device, round_to)
    for path in cache:
        stored = _read(path, key)
        if stored is not None:
            _write(cache, stored)
            return _from_json(stored, groups)
    best: dict[str, Any] = {"error": np.inf}
    with freed_memory_kept():
        for attempt in range(_ATTEMPTS):
            samples = Samples(model, groups, observe, deploy or (lambda module: module), seed + attempt)
            best = min(best, _measured(samples, _Layout.of(model, samples, found), round_to), key=itemgetter("error"))
            if best["error"] <= POOR:
                break
    best["key"] = key
    _write(cache, best)
    return _from_json(best, groups)


def _measured(samples: Samples, layout: "_Layout", round_to: int | None) -> dict[str, Any]:
    """What is kept of a measurement."""
    if round_to is None:
        samples.add(_TRIALS, _ALIGNMENTS)
        round_to = _alignment(samples, layout)
    samples.add(max(0, _PLANS - samples.round_to.count(round_to)), (round_to,))
    plans = [p for p, multiple in enumerate(samples.round_to) if multiple in (0, round_to)]
    error = _held_out_error(samples, layout, plans[:-_HELD_OUT], plans[-_HELD_OUT:])
    coefficients = _fit_plans(samples, layout, plans)
    return {
        "coefficients": [[list(map(list, monomial)), value] for monomial, value in coefficients.items()],
        "dense_ms": samples.dense_seconds * 1000,
        "error": error,
        "round_to": round_to,
    }


def latency_cache(model: nn.Module, groups: Sequence[PruneGroup]) -> Path:
    """Where the coefficients of a model are kept for the next time."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    shapes = json.dumps([model_shapes(model), [group.name for group in groups]])
    return base / "l0prune" / f"latency-{hashlib.sha256(shapes.encode()).hexdigest()[:16]}.json"


def _from_json(stored: Mapping[str, Any], groups: Sequence[PruneGroup]) -> LatencyModel:
    coefficients = {tuple((g, power) for g, power in monomial): value for monomial, value in stored["coefficients"]}
    size = SizeModel(groups, coefficients, counts="femtoseconds")
    return LatencyModel(size=size, **{name: stored[name] for name in ("dense_ms", "error", "round_to")})


def _key(
    model: nn.Module, groups: Sequence[PruneGroup], found: Trace, device: torch.device, round_to: int | None
) -> str:
    """What the coefficients depend on: network, groups, input, machine, libraries."""
    facts = {
        "version": VERSION,
        "round_to": round_to,
        "shapes": {name: list(shape) for name, shape in model_shapes(model).items()},
        "groups": [(group.name, group.units, group.bypass.module if group.bypass else None) for group in groups],
        "costs": [(cost.module, cost.factor) for cost in found.costs],
        "processor": processor(device),
        "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "torch": versions()["torch"],
    }
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]


def _read(path: Path, key: str) -> dict[str, Any] | None:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stored if isinstance(stored, dict) and stored.get("key") == key else None


def _write(cache: Sequence[Path], stored: Mapping[str, Any]) -> None:
    for path in cache:
        if _read(path, stored["key"]) is None:
            write_json(path, stored)


@dataclass(frozen=True)
class _Layout:
    """What the time of each block may be proportional to, and which blocks share coefficients."""

    features: Mapping[str, list[Monomial]]
    kinds: Mapping[str, Any]

    @classmethod
    def of(cls, model: nn.Module, samples: Samples, found: Trace) -> "_Layout":
        features = {block: _features(block, samples.groups, found) for block in samples.blocks}
        kinds = {block: (_kind(block, model, found), len(features[block])) for block in samples.blocks}
        return cls(features, kinds)


def _fit_plans(samples: Samples, layout: "_Layout", chosen: Sequence[int]) -> dict[Monomial, int]:
    """Of each monomial, in the unit of the time model (`TICKS` a second), from some of the plans."""
    coefficients: Counter[Monomial] = Counter()
    by_kind: dict[Any, list[str]] = defaultdict(list)
    for block, kind in layout.kinds.items():
        by_kind[kind].append(block)
    times = samples.times
    for blocks in by_kind.values():
        rows, shares = [], []
        for block, p in itertools.product(blocks, chosen):
            took = times[p][1].get(block, 0.0)
            if took > 0:
                # What matters is the error as a share of the whole model's time.
                rows.append([_value(monomial, samples.plans[p]) / times[p][0] for monomial in layout.features[block]])
                shares.append(took / times[p][0])
        if not rows:
            continue
        fitted = _fit(np.array(rows), np.array(shares))
        for block in blocks:
            for monomial, value in zip(layout.features[block], fitted, strict=True):
                coefficients[monomial] += round(value * TICKS)
    rest = [times[p][0] - sum(times[p][1].values()) for p in chosen]
    coefficients[()] += round(max(0.0, float(np.median(rest))) * TICKS)
    return {monomial: value for monomial, value in coefficients.items() if value}


def _ratios(samples: Samples, layout: "_Layout", fitted: Sequence[int], plans: Sequence[int]) -> np.ndarray:
    """Measured over predicted time of whole models, by coefficients fitted to some plans, for others: (plans,)."""
    size = SizeModel(samples.groups, _fit_plans(samples, layout, fitted), counts="femtoseconds")
    times = samples.times
    return np.array([times[p][0] * TICKS / size.exact(samples.plans[p]) for p in plans])


def _held_out_error(samples: Samples, layout: "_Layout", fitted: Sequence[int], others: Sequence[int]) -> float:
    """Median relative error of whole models whose plans took no part in the fit."""
    return float(np.median(np.abs(1 / _ratios(samples, layout, fitted, others) - 1)))


def _alignment(samples: Samples, layout: "_Layout") -> int:
    """The alignment with which the plans take the least time for their widths, if that is worth it."""
    plans = [p for p, multiple in enumerate(samples.round_to) if multiple]
    ratios = _ratios(samples, layout, range(len(samples.plans)), plans).reshape(-1, len(_ALIGNMENTS))
    best, taken = 1, 1.0
    for number, alignment in enumerate(_ALIGNMENTS):
        against_none = float(np.median(ratios[:, number] / ratios[:, 0]))
        if against_none < taken - _PAYS:
            best, taken = alignment, against_none
    return best


def _features(block: str, groups: Sequence[PruneGroup], found: Trace) -> list[Monomial]:
    """What a block's time may be proportional to: its matrix products, each group in it, being there at all."""
    inside = [cost for cost in found.costs if is_inside(cost.module, block)]
    standing = [g for g, group in enumerate(groups) if any(is_inside(place.tensor, block) for place in group.places)]
    switches = [g for g, group in enumerate(groups) if group.bypass and group.bypass.module == block]
    # The fourth power stands for what gets slower per unit as it outgrows a cache.
    features = [*mac_monomials(groups, found, inside), *(((g, power),) for g in standing for power in (1, 4)), ()]
    return list(dict.fromkeys(with_switches(monomial, switches) for monomial in features))


def _kind(block: str, model: nn.Module, found: Trace) -> Any:
    """Blocks of one kind take the same time for the same widths."""
    shapes = [(name, tuple(tensor.shape)) for name, tensor in model.get_submodule(block).named_parameters()]
    costs = sorted(cost.factor for cost in found.costs if is_inside(cost.module, block))
    return type(model.get_submodule(block)), tuple(shapes), tuple(costs)


def _value(monomial: Monomial, counts: np.ndarray) -> float:
    return float(np.prod([counts[g] ** power if power else counts[g] > 0 for g, power in monomial]))


def _fit(matrix: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Non-negative coefficients (F,) with small errors in most rows: now and then an allocation takes long."""
    weights, solution = np.ones_like(shares), np.zeros(matrix.shape[1])
    for _ in range(_ROBUST_ROUNDS):
        solution = _least_squares(matrix * weights[:, None], shares * weights)
        miss = np.abs(matrix @ solution - shares)
        weights = 1 / np.sqrt(np.maximum(miss, _CLOSE))
    return solution


def _least_squares(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Non-negative least squares, trying every set of the few features. matrix: (rows, F), target: (rows,) -> (F,)."""
    width = matrix.shape[1]
    best, solution = np.inf, np.zeros(width)
    for size in range(1, min(width, 5) + 1):
        for chosen in itertools.combinations(range(width), size):
            part, *_ = np.linalg.lstsq(matrix[:, chosen], target, rcond=None)
            miss = float(((matrix[:, chosen] @ part - target) ** 2).sum())
            if (part >= 0).all() and miss < best - 1e-12:
                best, solution = miss, np.zeros(width)
                solution[list(chosen)] = part
    return solution
