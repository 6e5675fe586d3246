"""Modules that a cut makes fail, because their methods derive sizes that are wrong then: they are to keep the sizes."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from types import TracebackType

import numpy as np
import torch
from torch import Tensor, nn

from l0prune.discovery import Discovery, with_calls
from l0prune.example import Observe
from l0prune.groups import PruneGroup
from l0prune.proof import run_seeded
from l0prune.removal import RemovalPlan, apply_plan, make_plan
from l0prune.support import class_without_sizes, copied, model_shapes


def sized_where_needed(
    model: nn.Module, found: Discovery, observe: Observe, *, kinds: Iterable[type] = ()
) -> Discovery:
    """Groups that let modules keep sizes, wherever a cut forward pass fails without.

    The modules of a class go together, so that a class costs one more try. Where all of that is of no use, groups stay
    as they were, and the proof refuses what fails.

    Args:
        model: The model; it is left as it is.
        found: What can be pruned.
        observe: Runs a model on example inputs.
        kinds: Classes whose modules keep sizes in any case.
    """
    kinds = set(kinds)
    groups = _keeping(found, kinds) if kinds else found.groups
    if not groups or not found.sized.may_hold_any:
        return replace(found, groups=groups)
    for seed in (0, 1):
        while (guilty := _failing(model, groups, observe, seed)) is not None:
            offered = {module.kind for module in found.sized.values()}
            more = (guilty & offered) - kinds or offered - kinds
            if not more:
                break
            kinds |= more
            groups = _keeping(found, kinds)
    return replace(found, groups=groups)


def _keeping(found: Discovery, kinds: set[type]) -> tuple[PruneGroup, ...]:
    """The groups, with modules of some classes keeping sizes."""
    return with_calls(found.groups, {path: module for path, module in found.sized.items() if module.kind in kinds})


@torch.no_grad()
def _failing(model: nn.Module, groups: Sequence[PruneGroup], observe: Observe, seed: int) -> set[type] | None:
    """The classes of the modules in whose methods the forward pass of a random cut fails; None where it runs."""
    random = np.random.default_rng(seed)
    pairs = ((group, max(group.units, group.fewest + 1)) for group in groups)
    kept = {
        group.name: tuple(
            sorted(random.choice(group.units, random.integers(group.fewest, most), replace=False).tolist())
        )
        for group, most in pairs
    }
    try:
        plan = make_plan(groups, kept, model_shapes(model))
        pruned = apply_plan(copied(model, sharing=_cut_by(plan, model)), plan).eval()
        run_seeded(observe, pruned)
    except Exception as error:
        return _classes(error.__traceback__)
    return None


def _cut_by(plan: RemovalPlan, model: nn.Module) -> list[Tensor]:
    """The tensors in whose place a cut puts smaller ones: they need not be copied for it."""
    cut = {tensor for tensor, _ in plan.survivors()}
    return [tensor for name, tensor in [*model.named_parameters(), *model.named_buffers()] if name in cut]


def _classes(trace: TracebackType | None) -> set[type]:
    """The class of the innermost module that an error has come through and whose class is not torch's own."""
    found: set[type] = set()
    while trace is not None:
        code = trace.tb_frame.f_code
        this = trace.tb_frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        if isinstance(this, nn.Module) and not type(this).__module__.startswith("torch."):
            found = {class_without_sizes(type(this))}
        trace = trace.tb_next
    return found
