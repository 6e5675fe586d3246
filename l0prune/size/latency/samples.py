"""Random plans of a network, run on the machine at hand and timed block by block.

Legend: P plans, B blocks, G groups.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from l0prune.example import Observe
from l0prune.groups import PruneGroup
from l0prune.removal import Bypassed, Skipped, apply_plan, make_plan
from l0prune.support import copied, is_inside, model_shapes

_DENSE_EVERY = 12
"""Each so many plans one keeps everything."""
_RUNS, _PACE_RUNS = 5, 2
_EMPTIED = 0.15
"""Share of the blocks that a random plan empties."""


class Samples:
    """Random plans of a model, and how long each block of each took.

    Args:
        model: The dense model, without gates; it is left as it is.
        groups: Its prune groups.
        observe: Runs a model on the input whose latency matters.
        deploy: Gives a model the form in which it will run.
        seed: Of the random plans.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[PruneGroup],
        observe: Observe,
        deploy: Callable[[nn.Module], nn.Module],
        seed: int,
    ) -> None:
        self.groups, self.observe, self.device = groups, observe, next(model.parameters()).device
        self.blocks = blocks_of(model, groups)
        """B modules that are timed."""
        self._deploy, self._dense = deploy, deploy(copied(model).eval()).eval()
        self._model, self._shapes = copied(model).eval(), model_shapes(model)
        self._generator = np.random.default_rng(seed)
        self.plans: list[np.ndarray] = []
        """P kept counts (G,)"""
        self.round_to: list[int] = []
        """P numbers that the widths are multiples of"""
        self._taken: list[tuple[float, dict[str, float]]] = []
        self._time(self._dense, _RUNS)  # Warm-up.
        self._paces = [self._pace()]

    def add(self, count: int, round_to: Sequence[int]) -> None:
        """Time more plans.

        Args:
            count: How many.
            round_to: Numbers that their widths are multiples of: each plan comes once with each.
        """
        for _ in range(count):
            drawn = _random_shares(self.groups, self._generator)
            for multiple in round_to:
                if len(self.plans) % _DENSE_EVERY == 0:
                    self._record(np.array([group.units for group in self.groups]), self._dense, 0)
                counts = _counts(self.groups, drawn, multiple)
                self._record(counts, self._deploy(self._pruned(counts)).eval(), multiple)

    @property
    def dense_seconds(self) -> float:
        """Median of the dense model's."""
        return float(np.median(self._paces))

    @property
    def times(self) -> list[tuple[float, dict[str, float]]]:
        """P whole models' seconds and those of their blocks, as the machine's usual pace would have them.

        What a machine does beside may slow it down for minutes: the dense model, timed before and after each plan,
        shows it.
        """
        usual, made = self.dense_seconds, []
        for number, (whole, parts) in enumerate(self._taken):
            factor = usual / float(np.mean(self._paces[number : number + 2]))
            made.append((whole * factor, {block: seconds * factor for block, seconds in parts.items()}))
        return made

    def _record(self, counts: np.ndarray, model: nn.Module, multiple: int) -> None:
        self.plans.append(counts)
        self.round_to.append(multiple)
        self._time(model, 1)  # Warm-up.
        self._taken.append(self._time(model, _RUNS))
        self._paces.append(self._pace())

    def _pace(self) -> float:
        return self._time(self._dense, _PACE_RUNS)[0]

    def _pruned(self, counts: np.ndarray) -> nn.Module:
        """A copy of the model with the first units of each group: which ones stay makes no difference to the time."""
        kept = {group.name: tuple(range(count)) for group, count in zip(self.groups, counts.tolist(), strict=True)}
        return apply_plan(copied(self._model), make_plan(self.groups, kept, self._shapes)).eval()

    @torch.inference_mode()
    def _time(self, model: nn.Module, runs: int) -> tuple[float, dict[str, float]]:
        """Median seconds of the whole model and of each block."""
        wholes: list[float] = []
        parts: dict[str, list[float]] = defaultdict(list)
        with clocks(model, self.blocks, parts, self.device) as read:
            for _ in range(runs):
                begun = read()
                self.observe(model)
                wholes.append(read() - begun)
        return float(np.median(wholes)), {block: float(np.median(times)) for block, times in parts.items()}


@contextmanager
def clocks(
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
        if not isinstance(module, Bypassed | Skipped):
            handles += [module.register_forward_pre_hook(starts(block)), module.register_forward_hook(ends(block))]
    try:
        yield read
    finally:
        for handle in handles:
            handle.remove()


def blocks_of(model: nn.Module, groups: Sequence[PruneGroup]) -> list[str]:
    """The modules that are timed: what a group bypasses, and the parents of other layers that it stands on.

    A list of modules is never called itself: of its layers each is a block.
    """
    bypassed = {bypass.module: None for group in groups for bypass in group.bypasses}
    found = dict.fromkeys(bypassed)
    for group in groups:
        for place in group.places:
            layer = place.tensor.split(".parametrizations.")[0].rpartition(".")[0]
            if not is_inside(place.tensor, *bypassed):
                parent = layer.rpartition(".")[0]
                called = parent and not isinstance(model.get_submodule(parent), nn.ModuleList | nn.ModuleDict)
                found[parent if called else layer] = None
    # One within another would be counted twice.
    return [block for block in found if not is_inside(block, *(found.keys() - {block}))]


def _random_shares(groups: Sequence[PruneGroup], generator: np.random.Generator) -> np.ndarray:
    """The share (G,) of its units that each group keeps; some blocks are emptied."""
    density = generator.uniform(0.1, 1)
    shares = np.clip(density * generator.uniform(0.3, 1.7, len(groups)), 0.02, 1)
    for g, group in enumerate(groups):
        if group.bypass and (generator.random() < _EMPTIED or (group.units == 1 and generator.random() > density)):
            shares[g] = 0
    return shares


def _counts(groups: Sequence[PruneGroup], shares: np.ndarray, round_to: int) -> np.ndarray:
    """Kept counts (G,) near the shares, as selection would choose them."""
    steps = np.array([group.step(round_to) for group in groups])
    units = np.array([group.units for group in groups])
    fewest = np.array([group.fewest for group in groups])
    counts = np.minimum(units, np.maximum(1, np.round(shares * units / steps)).astype(np.int64) * steps)
    counts = np.maximum(counts, fewest)
    return np.where(shares > 0, counts, 0)
