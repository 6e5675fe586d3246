"""Peak activation memory as a metric: the most bytes that a layer reads and writes at once, on the example inputs."""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from l0prune.errors import TargetError
from l0prune.groups import PruneGroup
from l0prune.removal import apply_plan, make_plan
from l0prune.size import Cut, Metric, SizeModel, Subject, Target, register_metric
from l0prune.support import model_shapes

_TRIES = 12


def live_bytes(model: nn.Module, subject: Subject) -> np.ndarray:
    """Bytes of inputs and outputs of each call of a layer, in the order of the calls (T,)."""
    found: list[int] = []

    def note(_module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        tensors = [value for value in (*inputs, output) if isinstance(value, Tensor)]
        found.append(sum(tensor.numel() * tensor.element_size() for tensor in tensors))

    layers = [module for module in model.modules() if not list(module.children())]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        with torch.no_grad():
            subject.observe(model)
    finally:
        for hook in hooks:
            hook.remove()
    return np.array(found)


def without_one_unit(subject: Subject, chosen: PruneGroup) -> nn.Module:
    """The dense model without the last unit of a group."""
    kept = {group.name: tuple(range(group.units - (group is chosen))) for group in subject.groups}
    model = copy.deepcopy(subject.model).eval()
    return apply_plan(model, make_plan(subject.groups, kept, model_shapes(model)))


class PeakActivationMemory(Metric):
    """A peak is no polynomial, so gates learn by the memory of all calls that come near it, and the cut measures."""

    name, noun = "peak-activation-memory", "bytes of peak activation memory"
    measured_at_cut = True

    def size(self, subject: Subject) -> SizeModel:
        """Bytes of the calls that have at least half of the dense peak: what each unit adds to them is constant."""
        dense = live_bytes(copy.deepcopy(subject.model).eval(), subject)
        near = dense >= dense.max() / 2
        terms: dict[tuple[tuple[int, int], ...], int] = {}
        for number, group in enumerate(subject.groups):
            terms[((number, 1),)] = int((dense - live_bytes(without_one_unit(subject, group), subject))[near].sum())
        by_units = sum(terms[((number, 1),)] * group.units for number, group in enumerate(subject.groups))
        return SizeModel(subject.groups, terms | {(): int(dense[near].sum()) - by_units}, counts=self.noun)

    def meet(self, cut: Cut, target: Target, subject: Subject) -> dict[str, Any]:
        """Find the largest budget under which the measured peak is small enough."""
        before = int(live_bytes(subject.model.eval(), subject).max())
        allowed = (1 - target.asked) * before
        low, high = cut.size_model.floor_for(cut.gates.config.round_to or 1), cut.size_model.total
        for _ in range(_TRIES):
            middle = (low + high) // 2
            cut.gates.allow(middle)
            fits = live_bytes(cut.pruned()[0].eval(), subject).max() <= allowed
            low, high = (middle, high) if fits else (low, middle)
        cut.gates.allow(low)
        after = int(live_bytes(cut.pruned()[0].eval(), subject).max())
        if after > allowed:
            raise TargetError("the peak cannot be lowered so far", got=after, expected=f"{allowed:.0f} bytes or less")
        return {"peak_bytes_before": before, "peak_bytes_after": after}

    def left(self, target: Target, kept: np.ndarray, facts: Mapping[str, Any]) -> float:
        """As measured at the cut."""
        return facts["peak_bytes_after"] / facts["peak_bytes_before"]


register_metric(PeakActivationMemory())
