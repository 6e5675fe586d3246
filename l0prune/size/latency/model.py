"""Latency as a polynomial of kept counts, measured block by block on the machine at hand.

A block (a convolution with its norm, an attention, a feed-forward network) takes a time that is nearly affine in the
products of kept counts that its matrix products have. So a few pruned copies with random widths, timed block by block
as they run, give the coefficients; blocks of one shape share them. The sum is a `SizeModel` in femtoseconds, shown
in ms: its expectation under the gates is exact and differentiable, and everything that works for parameters works for
time.

Legend: P plans, B blocks, F features of a block.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from l0prune.discovery import Trace
from l0prune.errors import RunError
from l0prune.groups import PruneGroup
from l0prune.measuring import freed_memory_kept, processor
from l0prune.size.latency.fit import ALIGNMENTS, MS, Layout, alignment, fit_plans, held_out_error
from l0prune.size.latency.samples import Observe, Samples
from l0prune.size.polynomial import SizeModel
from l0prune.support import cache_folder, model_shapes, versions, write_json

VERSION = 5
_PLANS, _HELD_OUT = 30, 10
_TRIALS = 6
"""Plans that are timed with each of several alignments."""
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
    kept: Mapping[str, Any] = field(default_factory=dict)
    """The same as JSON, for a file that `cache` names."""


def measure_latency(
    model: nn.Module,
    groups: Sequence[PruneGroup],
    observe: Observe,
    found: Trace,
    *,
    deploy: Callable[[nn.Module], nn.Module] | None = None,
    round_to: int | None = None,
    cache: Sequence[Path] = (),
    resumed: bool = False,
    note: Callable[[str], None] = lambda text: None,
    seed: int = 0,
) -> LatencyModel:
    """Fit a latency model by running pruned copies of a model.

    Args:
        model: The dense model, without gates, on the device that matters; it is left as it is.
        groups: Its prune groups.
        observe: Runs a model on the input whose latency matters.
        found: `trace` of the model on that input.
        deploy: Gives a model the form in which it will run, with the same block names. An attribute `form`, a text,
            tells forms apart whose weights are alike.
        round_to: What widths are multiples of; by default what pays on the device.
        cache: Files to read the coefficients from, and to write them to; the first that fits is used. A poor fit is
            not kept, and measured again the next time. Where a file cannot be written, nothing is kept.
        resumed: The files are a run's own, which goes on with the figures that it began with, however poor.
        note: Told where nothing can be kept.
        seed: Of the random plans.
    """
    device = next(model.parameters()).device
    key = _key(model, groups, found, device, round_to, getattr(deploy, "form", ""))
    for path in cache:
        stored = _read(path, key)
        if stored is not None and (resumed or stored["error"] <= POOR):
            _write(cache, stored, note)
            return _from_json(stored, groups)
    best: dict[str, Any] = {"error": np.inf}
    with freed_memory_kept():
        for attempt in range(_ATTEMPTS):
            samples = Samples(model, groups, observe, deploy or (lambda module: module), seed + attempt)
            best = min(best, _measured(samples, Layout.of(model, samples, found), round_to), key=itemgetter("error"))
            if best["error"] <= POOR:
                break
    best["key"] = key
    if resumed or best["error"] <= POOR:
        _write(cache, best, note)
    return _from_json(best, groups)


def _measured(samples: Samples, layout: Layout, round_to: int | None) -> dict[str, Any]:
    """What is kept of a measurement."""
    if round_to is None:
        samples.add(_TRIALS, ALIGNMENTS)
        round_to = alignment(samples, layout)
    samples.add(max(0, _PLANS - samples.round_to.count(round_to)), (round_to,))
    plans = [p for p, multiple in enumerate(samples.round_to) if multiple in (0, round_to)]
    error = held_out_error(samples, layout, plans[:-_HELD_OUT], plans[-_HELD_OUT:])
    coefficients = fit_plans(samples, layout, plans)
    return {
        "coefficients": [[list(map(list, monomial)), value] for monomial, value in coefficients.items()],
        "dense_ms": samples.dense_seconds * 1000,
        "error": error,
        "round_to": round_to,
    }


def latency_cache(model: nn.Module, groups: Sequence[PruneGroup]) -> tuple[Path, ...]:
    """Where the coefficients of a model are kept for the next time; nowhere without a home."""
    if (folder := cache_folder()) is None:
        return ()
    shapes = json.dumps([model_shapes(model), [group.name for group in groups]])
    return (folder / f"latency-{hashlib.sha256(shapes.encode()).hexdigest()[:16]}.json",)


def _from_json(stored: Mapping[str, Any], groups: Sequence[PruneGroup]) -> LatencyModel:
    coefficients = {tuple((g, power) for g, power in monomial): value for monomial, value in stored["coefficients"]}
    size = SizeModel(groups, coefficients, counts="ms", unit=MS)
    return LatencyModel(size=size, kept=stored, **{name: stored[name] for name in ("dense_ms", "error", "round_to")})


def _key(
    model: nn.Module,
    groups: Sequence[PruneGroup],
    found: Trace,
    device: torch.device,
    round_to: int | None,
    form: str = "",
) -> str:
    """What the coefficients depend on: network, groups, input, machine, libraries, the form in which it runs."""
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
    facts |= {"form": form} if form else {}
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]


def _read(path: Path, key: str) -> dict[str, Any] | None:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stored if isinstance(stored, dict) and stored.get("key") == key else None


def _write(cache: Sequence[Path], stored: Mapping[str, Any], note: Callable[[str], None]) -> None:
    for path in cache:
        if _read(path, stored["key"]) != stored:
            try:
                write_json(path, stored)
            except RunError as error:
                # It serves the next run alone, and this one has what it needs.
                note(f"latency is measured again the next time: {error}, or set XDG_CACHE_HOME")
