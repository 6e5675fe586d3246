"""Whether removal changed anything: gated against pruned outputs, planned against counted size."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from l0prune.errors import DataError, L0PruneError, ProofError
from l0prune.example import Observe
from l0prune.gates import GatedModel
from l0prune.measuring import parameters
from l0prune.support import evaluating, output_numbers, output_tensors, tree_leaves

RUN_TOLERANCE = 1e-5
"""Largest relative difference between gated and pruned outputs, in float32, that a compression run allows."""
_TOWERING = 1e4
"""How many times larger than another an output is if it is of another kind: a constant in the place of a number."""
ROUNDING_MARGIN = 10
"""How far two ways of summing may lie apart, in changes that one rounding step of every parameter makes."""


def relative_difference(expected: object, got: object) -> float:
    """Largest |expected - got| / max |expected| over the tensors, arrays and fractions of two outputs of one structure.

    Equal values differ by 0, infinite ones too, as those of masked logits; a NaN differs beyond measure. Equal values
    that tower above all that differ, as logits masked by -1e9, are no measure of these.
    """
    first, second = output_numbers(expected), output_numbers(got)
    if len(first) != len(second):
        return float("inf")
    worst = 0.0
    for a, b in zip(first, second, strict=True):
        if a.shape != b.shape:
            return float("inf")
        if a.numel() and _has_fractions(a):
            wide = torch.complex128 if a.is_complex() else torch.float64
            a, b = a.detach().to(wide), b.detach().to(wide)
            size, equal = a.abs().masked_fill(~a.isfinite(), 0), a == b
            if differing := float(size.masked_fill(equal, 0).max()):
                size = size.masked_fill(equal & (size > _TOWERING * differing), 0)
            difference = float((a - b).abs().masked_fill(equal, 0).max() / size.max().clamp_min(1e-30))
            worst = max(worst, float("inf") if math.isnan(difference) else difference)
    return worst


def _has_fractions(leaf: Tensor) -> bool:
    return leaf.is_floating_point() or leaf.is_complex()


def run_seeded(observe: Observe, model: nn.Module, seed: int = 0) -> Any:
    """What `observe` returns from a given random state: two models that draw alike can be compared."""
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices):
        # Not `torch.manual_seed`, which would seed the devices whose state is not put back.
        for generator in (torch.default_generator, *(torch.cuda.default_generators[d] for d in devices)):
            generator.manual_seed(seed)
        return observe(model)


@torch.no_grad()
def compare(gated: GatedModel, observe: Observe, pruned: nn.Module | Callable[[], nn.Module] | None = None) -> float:
    """Relative difference between the gated model's evaluation outputs and those of the pruned copy.

    Args:
        gated: The gated model.
        observe: Runs a model on example inputs.
        pruned: The copy, if it has been made, or what makes it; None for the gated model's own way.

    Raises:
        ProofError: The pruned copy has not the size that was planned, or does not run.
        DataError: The outputs hold nothing to compare.
    """
    with evaluating(gated):
        expected = run_seeded(observe, gated.model)
        if not any(_has_fractions(tensor) for tensor in output_numbers(expected)):
            got = ", ".join(sorted({type(leaf).__name__ for leaf in tree_leaves(expected)})) or "nothing"
            hint = "return tensors from `output_transform` (or a plugin's `observe`), nested as you like"
            raise DataError("outputs hold no floating-point tensor to compare", got=got, hint=hint)
        if not isinstance(pruned, nn.Module):
            pruned = pruned() if pruned is not None else gated.pruned()[0]
        # What the selection counts by, which knows nothing of the other groups around an emptied block.
        counts = np.array([int((values > 0).sum()) for values in gated.gate_values().values()])
        planned, counted = gated.parameter_model.exact(counts), parameters(pruned)
        if planned != counted:
            raise ProofError("pruned size differs from the plan", got=f"{counted:,}", expected=f"{planned:,}")
        return relative_difference(expected, _outputs_of_cut(pruned, observe))


def _outputs_of_cut(pruned: nn.Module, observe: Observe) -> Any:
    try:
        return run_seeded(observe, pruned)
    except L0PruneError:
        raise
    except Exception as error:
        raise ProofError(failure_of_cut(error)) from error


def failure_of_cut(error: Exception) -> str:
    """Why a cut cannot be: an error of our own, or whatever a foreign forward raises once it is cut, in one line."""
    message = " ".join(str(error).split())[:300] or type(error).__name__
    return message if isinstance(error, L0PruneError) else f"the cut forward pass fails: {message}"


def tolerance_for(pruned: nn.Module, tolerance: float) -> float:
    """Half precision rounds the folded gates: its outputs may differ by several of its smallest steps."""
    coarsest = max(torch.finfo(p.dtype).eps for p in pruned.parameters() if p.is_floating_point())
    return max(tolerance, 50 * coarsest if coarsest > 1e-4 else 0)


def objection(
    gated: GatedModel,
    observe: Observe,
    difference: float,
    tolerance: float,
    pruned: Callable[[], nn.Module] | None = None,
) -> str:
    """Why a difference between gated and pruned outputs is neither within tolerance nor what rounding explains.

    A normalisation over a few almost equal channels magnifies the last bit of its input. How much, shows when every
    parameter of the pruned model moves by one rounding step; it does not show where two runs differ without that.

    Args:
        gated: The gated model.
        observe: Runs a model on example inputs.
        difference: What `compare` returned.
        tolerance: Largest relative difference allowed in any case.
        pruned: Makes the pruned copy anew; None for the gated model's own way.

    Returns:
        The reason; empty where there is none.
    """
    if difference <= tolerance:
        return ""
    if difference == math.inf:
        with torch.no_grad(), evaluating(gated):
            outputs = output_tensors(run_seeded(observe, gated.model))
        if any(tensor.isnan().any() for tensor in outputs):
            return "the outputs hold NaN on these inputs before any cut, which nothing can be compared with"
        return "the cut makes NaN or infinite values of outputs, or changes their shape or number"
    reason = f"relative difference {difference:.1e}, at most {tolerance:.0e} allowed"
    with torch.no_grad(), evaluating(gated):
        cut = pruned() if pruned is not None else gated.pruned()[0]
        before, again, otherwise = (run_seeded(observe, cut, seed) for seed in (0, 0, 1))
        if relative_difference(before, again) <= tolerance:
            with moved(cut):
                rounding = relative_difference(before, run_seeded(observe, cut))
            if difference <= ROUNDING_MARGIN * rounding:
                return ""
    if max(relative_difference(before, run) for run in (again, otherwise)) > tolerance:
        return f"{reason}: the forward pass does not repeat itself in evaluation mode"
    return reason


@contextmanager
def moved(model: nn.Module) -> Iterator[None]:
    """Every parameter is one rounding step further up or down meanwhile."""
    generator, before = torch.Generator().manual_seed(0), {}
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                before[parameter] = parameter.clone()
                up = torch.rand(parameter.shape, generator=generator).to(parameter.device) < 0.5
                parameter.mul_(1 + (2 * up - 1) * torch.finfo(parameter.dtype).eps)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, values in before.items():
                parameter.copy_(values)
