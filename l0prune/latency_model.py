"""Latency as a polynomial of kept counts, measured block by block on the machine at hand.

A block (a convolution with its norm, an attention, a feed-forward network) takes a time that is nearly affine in the
products of kept counts that its matrix products have. So a few pruned copies with random widths, timed block by block
as they run, give the coefficients; blocks of one shape share them. The sum is a `SizeModel` in nanoseconds: its
expectation under the gates is exact and differentiable, and everything that works for parameters works for time.

Legend: P plans, B blocks, F features of a block.
"""

import copy
import hashlib
import itertools
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from l0prune.benchmark import processor
from l0prune.config import RunConfig
from l0prune.errors import TargetError
from l0prune.files import write_json
from l0prune.gating import GatedModel
from l0prune.groups import PruneGroup
from l0prune.mac_model import mac_monomials
from l0prune.plan import model_shapes
from l0prune.report import versions
from l0prune.size_model import Monomial, SizeModel
from l0prune.trace import Trace

VERSION = 1
_ALIVE = 0
_PLANS, _HELD_OUT = 36, 12
_DENSE = 3
"""Plans that keep everything, spread over the others."""
_RUNS = 5
_ROBUST_ROUNDS = 6
_EMPTIED = 0.15
"""Share of the blocks that a random plan empties."""

Observe = Callable[[nn.Module], Any]


@dataclass(frozen=True, kw_only=True)
class LatencyModel:
    """A latency in nanoseconds for every plan."""

    size: SizeModel
    dense_ms: float
    """Measured, of the whole dense model."""
    error: float
    """Median relative error on plans that the coefficients were not fitted to, whole models measured."""


def measure_latency(
    model: nn.Module,
    groups: Sequence[PruneGroup],
    observe: Observe,
    found: Trace,
    *,
    deploy: Callable[[nn.Module], nn.Module] | None = None,
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
        cache: Files to read the coefficients from, and to write them to; the first that fits is used.
        seed: Of the random plans.
    """
    device = next(model.parameters()).device
    key = _key(model, groups, found, device)
    for path in cache:
        stored = _read(path, key)
        if stored is not None:
            _write(cache, stored)
            return _from_json(stored, groups)
    samples = _Samples(model, groups, found, observe, deploy or (lambda module: module), device, seed)
    error = samples.held_out_error()
    coefficients = samples.fit(range(len(samples.plans)))
    stored = {
        "key": key,
        "coefficients": [[list(map(list, monomial)), value] for monomial, value in coefficients.items()],
        "dense_ms": samples.dense_seconds * 1000,
        "error": error,
    }
    _write(cache, stored)
    return _from_json(stored, groups)


def latency_cache(model: nn.Module, groups: Sequence[PruneGroup]) -> Path:
    """Where the coefficients of a model are kept for the next time."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    shapes = json.dumps([model_shapes(model), [group.name for group in groups]])
    return base / "l0prune" / f"latency-{hashlib.sha256(shapes.encode()).hexdigest()[:16]}.json"


def sparsity_for(latency: LatencyModel, config: RunConfig) -> float:
    """The share of the dense latency that a run's target removes.

    Raises:
        TargetError: No plan is as fast as asked; says what can be reached on this device.
    """
    fastest = latency.size.floor / latency.size.total
    if config.target_speedup is not None:
        left = 1 / config.target_speedup
    elif config.target_ms is not None:
        left = config.target_ms / latency.dense_ms
        if left >= 1:
            hint = "there is nothing to remove"
            raise TargetError(
                "dense network is as fast",
                got=f"{config.target_ms} ms",
                expected=f"below {latency.dense_ms:.1f} ms",
                hint=hint,
            )
    else:
        left = 1 - config.target_sparsity
    if left < fastest:
        got = f"{1 / left:.2f} times faster, {left * latency.dense_ms:.1f} ms"
        expected = f"at most {1 / fastest:.2f} times, {fastest * latency.dense_ms:.1f} ms, on this device"
        raise TargetError("latency target cannot be met", got=got, expected=expected, hint="prune more kinds of unit")
    return 1 - left


def _from_json(stored: Mapping[str, Any], groups: Sequence[PruneGroup]) -> LatencyModel:
    coefficients = {tuple((g, power) for g, power in monomial): value for monomial, value in stored["coefficients"]}
    size = SizeModel(groups, coefficients, counts="nanoseconds")
    return LatencyModel(size=size, dense_ms=stored["dense_ms"], error=stored["error"])


def _key(model: nn.Module, groups: Sequence[PruneGroup], found: Trace, device: torch.device) -> str:
    """What the coefficients depend on: network, groups, input, machine, libraries."""
    facts = {
        "version": VERSION,
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


class _Samples:
    """Random plans of a model, and how long each block of each took."""

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[PruneGroup],
        found: Trace,
        observe: Observe,
        deploy: Callable[[nn.Module], nn.Module],
        device: torch.device,
        seed: int,
    ) -> None:
        self.groups, self.device, self.observe = groups, device, observe
        self.blocks = _blocks(groups)
        self.features = {block: _features(block, groups, found) for block in self.blocks}
        self.kinds = {block: _kind(block, model, found) for block in self.blocks}
        twin = copy.deepcopy(model).eval()
        dense = deploy(copy.deepcopy(twin)).eval()
        gated = GatedModel(twin, groups, target_sparsity=1e-9).eval()
        generator = np.random.default_rng(seed)
        self.plans: list[np.ndarray] = []
        """P kept counts (G,)"""
        self.times: list[tuple[float, dict[str, float]]] = []
        """P whole models' seconds, and those of their blocks"""
        self._time(dense)  # Warm-up.
        for number in range(_PLANS):
            values = _random_plan(groups, generator)
            if number % (_PLANS // _DENSE):
                with gated.gates.fixed(torch.from_numpy(values).float()):
                    pruned = deploy(gated.pruned()[0]).eval()
                counts = np.array([int((part > 0).sum()) for part in _split(values, groups)])
            else:
                pruned, counts = dense, np.array([group.units for group in groups])
            self.plans.append(counts)
            self.times.append(self._time(pruned))
        self.dense_seconds = float(np.median([whole for whole, _ in self.times[:: _PLANS // _DENSE]]))

    def fit(self, chosen: Sequence[int]) -> dict[Monomial, int]:
        """Nanoseconds of each monomial, from some of the plans."""
        coefficients: Counter[Monomial] = Counter()
        by_kind: dict[Any, list[str]] = defaultdict(list)
        for block in self.blocks:
            by_kind[self.kinds[block]].append(block)
        for blocks in by_kind.values():
            rows, seconds = [], []
            for block, p in itertools.product(blocks, chosen):
                took = self.times[p][1].get(block, 0.0)
                if took > 0:
                    rows.append([_value(monomial, self.plans[p]) for monomial in self.features[block]])
                    seconds.append(took)
            if not rows:
                continue
            matrix, target = np.array(rows, dtype=float), np.array(seconds)
            fitted = _fit(matrix, target)
            for block in blocks:
                for monomial, value in zip(self.features[block], fitted, strict=True):
                    coefficients[monomial] += round(value * 1e9)
        rest = [self.times[p][0] - sum(self.times[p][1].values()) for p in chosen]
        coefficients[()] += round(max(0.0, float(np.median(rest))) * 1e9)
        return {monomial: value for monomial, value in coefficients.items() if value}

    def held_out_error(self) -> float:
        """Median relative error of whole models whose plans took no part in the fit."""
        chosen = range(_PLANS - _HELD_OUT)
        size = SizeModel(self.groups, self.fit(chosen), counts="nanoseconds")
        others = range(_PLANS - _HELD_OUT, _PLANS)
        errors = [abs(size.exact(self.plans[p]) / 1e9 / self.times[p][0] - 1) for p in others]
        return float(np.median(errors))

    @torch.inference_mode()
    def _time(self, model: nn.Module) -> tuple[float, dict[str, float]]:
        """Median seconds of the whole model and of each block, warm."""
        self.observe(model)
        wholes: list[float] = []
        parts: dict[str, list[float]] = defaultdict(list)
        with _clocks(model, self.blocks, parts, self.device) as read:
            for _ in range(_RUNS):
                begun = read()
                self.observe(model)
                wholes.append(read() - begun)
        return float(np.median(wholes)), {block: float(np.median(times)) for block, times in parts.items()}


@contextmanager
def _clocks(
    model: nn.Module, blocks: Sequence[str], parts: dict[str, list[float]], device: torch.device
) -> Iterator[Callable[[], float]]:
    """Record in `parts` how long each block runs; gives the clock."""

    def read() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    begun: dict[str, float] = {}

    def starts(block: str) -> Callable[..., None]:
        return lambda *_: begun.__setitem__(block, read())

    def ends(block: str) -> Callable[..., None]:
        return lambda *_: parts[block].append(read() - begun[block])

    handles = []
    for block in blocks:
        module = model.get_submodule(block)
        # A bypass takes no time worth counting, and is no block any more.
        if any(True for _ in module.parameters()) or any(True for _ in module.buffers()):
            handles += [module.register_forward_pre_hook(starts(block)), module.register_forward_hook(ends(block))]
    try:
        yield read
    finally:
        for handle in handles:
            handle.remove()


def _blocks(groups: Sequence[PruneGroup]) -> list[str]:
    """The modules that are timed: what a group bypasses, and the parents of other layers that it stands on."""
    bypassed = {group.bypass.module for group in groups if group.bypass}
    found = dict.fromkeys(bypassed)
    for group in groups:
        for place in group.places:
            layer = place.tensor.split(".parametrizations.")[0].rpartition(".")[0]
            if not any(f"{place.tensor}.".startswith(f"{block}.") for block in bypassed):
                found[layer.rpartition(".")[0] or layer] = None
    # One within another would be counted twice.
    return [block for block in found if not any(block.startswith(f"{other}.") for other in found)]


def _features(block: str, groups: Sequence[PruneGroup], found: Trace) -> list[Monomial]:
    """What a block's time may be proportional to: its matrix products, each group in it, being there at all."""
    inside = [cost for cost in found.costs if f"{cost.module}.".startswith(f"{block}.")]
    standing = [
        g for g, group in enumerate(groups) if any(place.tensor.startswith(f"{block}.") for place in group.places)
    ]
    switches = [(g, _ALIVE) for g, group in enumerate(groups) if group.bypass and group.bypass.module == block]
    # The square stands for what gets slower per unit as it outgrows a cache.
    features = [*mac_monomials(groups, found, inside), *(((g, power),) for g in standing for power in (1, 2)), ()]
    with_switches = []
    for monomial in features:
        missing = [switch for switch in switches if switch[0] not in dict(monomial)]
        with_switches.append(tuple(sorted([*monomial, *missing])))
    return list(dict.fromkeys(with_switches))


def _kind(block: str, model: nn.Module, found: Trace) -> Any:
    """Blocks of one kind take the same time for the same widths."""
    shapes = [(name, tuple(tensor.shape)) for name, tensor in model.get_submodule(block).named_parameters()]
    costs = sorted(cost.factor for cost in found.costs if f"{cost.module}.".startswith(f"{block}."))
    return type(model.get_submodule(block)), tuple(shapes), tuple(costs)


def _random_plan(groups: Sequence[PruneGroup], generator: np.random.Generator) -> np.ndarray:
    """Gate values (N,), 0 or 1: each group keeps a random share, some blocks are emptied."""
    density = generator.uniform(0.1, 1)
    parts = []
    for group in groups:
        share = np.clip(density * generator.uniform(0.3, 1.7), 0.02, 1)
        count = max(1, round(group.units * share))
        if group.bypass and (generator.random() < _EMPTIED or (group.units == 1 and generator.random() > density)):
            count = 0
        values = np.zeros(group.units)
        values[generator.permutation(group.units)[:count]] = 1
        parts.append(values)
    return np.concatenate(parts)


def _split(values: np.ndarray, groups: Sequence[PruneGroup]) -> list[np.ndarray]:
    return np.split(values, np.cumsum([group.units for group in groups])[:-1])


def _value(monomial: Monomial, counts: np.ndarray) -> float:
    return float(np.prod([counts[g] ** power if power else counts[g] > 0 for g, power in monomial]))


def _fit(matrix: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Non-negative coefficients (F,) with small relative errors in most rows: now and then an allocation takes long."""
    weights, solution = np.ones_like(seconds), np.zeros(matrix.shape[1])
    for _ in range(_ROBUST_ROUNDS):
        scaled = matrix * (weights / seconds)[:, None]
        solution = _least_squares(scaled, weights)
        miss = np.abs(matrix @ solution / seconds - 1)
        weights = 1 / np.sqrt(np.maximum(miss, 0.01))
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
