"""From times of random plans to a polynomial in kept counts."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from l0prune.discovery import Trace
from l0prune.groups import PruneGroup
from l0prune.size.latency.samples import Samples
from l0prune.size.macs import mac_monomials
from l0prune.size.polynomial import Monomial, SizeModel, with_switches
from l0prune.support import is_inside

TICKS = 10**15
"""A second in the model's units: so small that the coefficient of a fourth power is a whole number too."""
MS = TICKS // 1000
ALIGNMENTS = (1, 8, 32)
_PAYS = 0.03
"""An alignment must save this share of the time: it leaves less choice."""
_ROBUST_ROUNDS, _CLOSE = 6, 0.01


@dataclass(frozen=True)
class Layout:
    """What the time of each block may be proportional to, and which blocks share coefficients."""

    features: Mapping[str, list[Monomial]]
    kinds: Mapping[str, Any]

    @classmethod
    def of(cls, model: nn.Module, samples: Samples, found: Trace) -> "Layout":
        """The layout of a model's timed blocks.

        Args:
            model: The dense model.
            samples: Says which blocks are timed.
            found: The forward pass whose products may cost time.
        """
        features = {block: _features(block, samples.groups, found) for block in samples.blocks}
        kinds = {block: (_kind(block, model, found), len(features[block])) for block in samples.blocks}
        return cls(features, kinds)


def fit_plans(samples: Samples, layout: Layout, chosen: Sequence[int]) -> dict[Monomial, int]:
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
        fitted = fit_robustly(np.array(rows), np.array(shares))
        for block in blocks:
            for monomial, value in zip(layout.features[block], fitted, strict=True):
                coefficients[monomial] += round(value * TICKS)
    rest = [times[p][0] - sum(times[p][1].values()) for p in chosen]
    coefficients[()] += round(max(0.0, float(np.median(rest))) * TICKS)
    return {monomial: value for monomial, value in coefficients.items() if value}


def _ratios(samples: Samples, layout: Layout, fitted: Sequence[int], plans: Sequence[int]) -> np.ndarray:
    """Measured over predicted time of whole models, by coefficients fitted to some plans, for others: (plans,)."""
    size = SizeModel(samples.groups, fit_plans(samples, layout, fitted), counts="ms", unit=MS)
    times = samples.times
    return np.array([times[p][0] * TICKS / size.exact(samples.plans[p]) for p in plans])


def held_out_error(samples: Samples, layout: Layout, fitted: Sequence[int], others: Sequence[int]) -> float:
    """Median relative error of whole models whose plans took no part in the fit."""
    return float(np.median(np.abs(1 / _ratios(samples, layout, fitted, others) - 1)))


def alignment(samples: Samples, layout: Layout) -> int:
    """The alignment with which the plans take the least time for their widths, if that is worth it."""
    plans = [p for p, multiple in enumerate(samples.round_to) if multiple]
    ratios = _ratios(samples, layout, range(len(samples.plans)), plans).reshape(-1, len(ALIGNMENTS))
    best, taken = 1, 1.0
    for number, alignment in enumerate(ALIGNMENTS):
        against_none = float(np.median(ratios[:, number] / ratios[:, 0]))
        if against_none < taken - _PAYS:
            best, taken = alignment, against_none
    return best


def _features(block: str, groups: Sequence[PruneGroup], found: Trace) -> list[Monomial]:
    """What a block's time may be proportional to: its matrix products, each group in it, being there at all."""
    inside = [cost for cost in found.costs if is_inside(cost.module, block)]
    standing = [g for g, group in enumerate(groups) if any(is_inside(place.tensor, block) for place in group.places)]
    switches = [g for g, group in enumerate(groups) if any(bypass.module == block for bypass in group.bypasses)]
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


def fit_robustly(matrix: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Non-negative coefficients (F,) with small errors in most rows: now and then an allocation takes long."""
    weights, solution = np.ones_like(shares), np.zeros(matrix.shape[1])
    for _ in range(_ROBUST_ROUNDS):
        solution = least_squares(matrix * weights[:, None], shares * weights)
        miss = np.abs(matrix @ solution - shares)
        weights = 1 / np.sqrt(np.maximum(miss, _CLOSE))
    return solution


def least_squares(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
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
