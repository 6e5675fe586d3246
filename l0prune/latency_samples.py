"""Random plans of a network, run on the machine at hand and timed block by block.

Legend: P plans, B blocks, G groups, N units of all groups.
"""

import copy
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from l0prune.gating import GatedModel
from l0prune.groups import PruneGroup

_DENSE = 3
"""Plans that keep everything, spread over the others."""
_RUNS = 5
_EMPTIED = 0.15
"""Share of the blocks that a random plan empties."""

Observe = Callable[[nn.Module], Any]


class Samples:
    """Random plans of a model, and how long each block of each took.

    Args:
        model: The dense model, without gates; it is left as it is.
        groups: Its prune groups.
        observe: Runs a model on the input whose latency matters.
        deploy: Gives a model the form in which it will run.
        count: How many plans, P.
        seed: Of the random plans.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[PruneGroup],
        observe: Observe,
        deploy: Callable[[nn.Module], nn.Module],
        count: int,
        seed: int,
    ) -> None:
        self.groups, self.observe, self.device = groups, observe, next(model.parameters()).device
        self.blocks = _blocks(groups)
        """B modules that are timed."""
        twin = copy.deepcopy(model).eval()
        dense = deploy(copy.deepcopy(twin)).eval()
        gated = GatedModel(twin, groups, target_sparsity=1e-9).eval()
        generator = np.random.default_rng(seed)
        self.plans: list[np.ndarray] = []
        """P kept counts (G,)"""
        self.times: list[tuple[float, dict[str, float]]] = []
        """P whole models' seconds, and those of their blocks"""
        self._time(dense)  # Warm-up.
        for number in range(count):
            values = _random_plan(groups, generator)
            if number % (count // _DENSE):
                with gated.gates.fixed(torch.from_numpy(values).float()):
                    pruned = deploy(gated.pruned()[0]).eval()
                counts = np.array([int((part > 0).sum()) for part in _split(values, groups)])
            else:
                pruned, counts = dense, np.array([group.units for group in groups])
            self.plans.append(counts)
            self.times.append(self._time(pruned))
        self.dense_seconds = float(np.median([whole for whole, _ in self.times[:: count // _DENSE]]))

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
