"""Every prune group tried on the model itself before it is trained, with units closed and blocks emptied."""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from l0prune.errors import DataError, GroupError, ProofError
from l0prune.example import Observe
from l0prune.gates import GatedModel
from l0prune.graphs import GraphForm
from l0prune.groups import PruneGroup, Role
from l0prune.proof.bisection import guilty, kind_of
from l0prune.proof.exactness import RUN_TOLERANCE, compare, failure_of_cut, objection, relative_difference, run_seeded
from l0prune.proof.training_mode import find_training_faults
from l0prune.removal import apply_plan
from l0prune.support import copied, owners

# Small enough that the budget rounds to the dense size.
KEEP_ALL = 1e-15
EVERYTHING = "all groups together"
_DORMANT = 1e-3


def prove_groups(gated: GatedModel, observe: Observe, *, tolerance: float = RUN_TOLERANCE) -> float:
    """Check every group on the caller's model, with random units closed and some blocks emptied.

    Args:
        gated: The gated model; its gates are left as they were.
        observe: Runs a model on example inputs.
        tolerance: Largest relative difference allowed.

    Returns:
        The largest relative difference seen.

    Raises:
        ProofError: Names the first group whose removal changes outputs or size, and why.
    """
    difference, faults = find_faults(gated, observe, tolerance=tolerance)
    for name, reason in faults.items():
        wrong = "its places in the weights are incomplete or wrong: leave it out of the groups"
        hint = None if name == EVERYTHING else wrong
        raise ProofError("pruning this group is not exact", where=name, got=reason, hint=hint)
    return difference


def find_faults(
    gated: GatedModel, observe: Observe, *, tolerance: float = RUN_TOLERANCE
) -> tuple[float, dict[str, str]]:
    """The largest difference among groups that can be pruned, and the reason against each that cannot, by name.

    All groups are closed together first, so that the accepted groups are exact together. Meanwhile nothing is too small
    to show an error.
    """
    with _awake(gated.model):
        cuts = _Cuts(gated)
        worst, reason = _trials(cuts, observe, [], tolerance)
        if reason:
            # What fails with every unit open fails whichever group is tried.
            return worst, {EVERYTHING: reason}
        exact = [worst]

        def against(closing: list[int]) -> str:
            difference, reason = _trials(cuts, observe, closing, tolerance)
            if not reason:
                exact.append(difference)
            return reason

        kinds = [kind_of(group) for group in gated.groups]
        found = guilty(range(len(gated.groups)), against, kinds.__getitem__)
        faults = {gated.groups[g].name: reason for g, reason in found}
        return max(exact), faults


class _Cuts:
    """Pruned copies of a gated model, for many selections: gates are taken off a copy once.

    Copies share the parameters that a cut leaves alone or replaces. A trial then costs what it changes.

    Args:
        gated: The gated model. Its parameters are to stay as they are meanwhile.
    """

    def __init__(self, gated: GatedModel) -> None:
        self.gated = gated

    @functools.cached_property
    def _dense(self) -> tuple[nn.Module, list[Tensor]]:
        """The model without gates, and the parameters that no gate is folded into."""
        twin = copied(self.gated, sharing=self.gated.model.parameters()).eval()
        dense = self.gated.as_cut(twin.detach())
        held = owners(dense)
        read = {p.tensor for group in self.gated.groups for p in group.places if p.role is Role.CONSUMES}
        folded = {id(getattr(*held[tensor][0])) for tensor in read}
        return dense, [parameter for parameter in dense.parameters() if id(parameter) not in folded]

    def __call__(self) -> nn.Module:
        """A copy without the units that are closed now, in evaluation mode."""
        dense, shared = self._dense
        values = self.gated.gate_values()
        kept = np.concatenate([value.cpu().numpy() > 0 for value in values.values()])
        return apply_plan(copied(dense, sharing=shared), self.gated.plan_of_cut(kept), values).eval()


def _trials(cuts: _Cuts, observe: Observe, closing: Sequence[int], tolerance: float) -> tuple[float, str]:
    """The largest difference over trials that close units of some groups and empty blocks in turn; why it is wrong."""
    gated, worst = cuts.gated, 0.0
    for trial, emptied in enumerate(groups_to_empty(gated.groups, closing)):
        values = trial_values(gated.groups, closing, emptied, trial)
        with gated.gates.fixed(values):
            difference, reason = _try(cuts, observe, tolerance)
        if reason:
            return difference, reason
        worst = max(worst, difference)
    return worst, ""


def groups_to_empty(groups: Sequence[PruneGroup], closing: Sequence[int]) -> list[set[int]]:
    """Groups to empty, trial by trial: none, twice, or then those around every other block and those around the rest.

    Several groups around one block (its units, and the block as a whole) take turns. Where none is closed, one trial
    shows all.
    """
    if not closing:
        return [set()]
    around: dict[str, list[int]] = {}
    for g in closing:
        bypass = groups[g].bypass
        if bypass:
            around.setdefault(bypass.module, []).append(g)
    blocks = list(around.values())
    turns = max(map(len, blocks), default=1)
    if not blocks:
        return [set(), set()]
    return [
        set(),
        *({block[turn % len(block)] for block in blocks[half::2]} for turn in range(turns) for half in (0, 1)),
    ]


def _try(cuts: _Cuts, observe: Observe, tolerance: float) -> tuple[float, str]:
    try:
        difference = compare(cuts.gated, observe, cuts)
        return difference, objection(cuts.gated, observe, difference, tolerance, cuts)
    except DataError:
        raise
    except Exception as error:
        return float("inf"), failure_of_cut(error)


def trial_values(groups: Sequence[PruneGroup], closing: Sequence[int], emptied: set[int], trial: int) -> Tensor:
    """Random gate values (N,): units of the groups in `closing` are closed, all of those in `emptied`.

    The first trial closes some units of each group and the later ones the rest, so that each unit is seen closed and
    open. How many those are, chance decides for each group: a number that a forward pass derives from two widths would
    stay right as long as both shrink alike.
    """
    split, generator = torch.Generator().manual_seed(0), torch.Generator().manual_seed(trial)
    parts = []
    for g, group in enumerate(groups):
        values = torch.ones(group.units)
        if g in closing:
            values = 0.3 + 0.7 * torch.rand(group.units, generator=generator)
            order = torch.randperm(group.units, generator=split)
            # One unit at least is closed, and one open; a single one stays. Of experts so many stay as are picked.
            most = group.units - group.fewest + 1
            some = int(torch.randint(min(1, most - 1), most, (), generator=split))
            first, rest = order[:some], order[some:][: most - 1] if some else order[:0]
            values[order if g in emptied else rest if trial else first] = 0
        parts.append(values)
    return torch.cat(parts)


def prove_on_copy(
    model: nn.Module,
    groups: Sequence[PruneGroup],
    observe: Observe,
    tolerance: float,
    *,
    form: GraphForm | None = None,
) -> tuple[dict[str, str], list[str]]:
    """Check groups on a copy of a model, in both modes, and in float32 where it is in half precision.

    Args:
        model: The model, without gates; it is left as it is.
        groups: Its prune groups.
        observe: Runs a model on example inputs.
        tolerance: Largest relative difference allowed.
        form: Makes a graph of the model, if that is to be cut.

    Returns:
        Reasons against groups, by name, and remarks.
    """
    if not groups:
        return {}, []
    twin = copied(model).eval()
    if any(parameter.dtype in (torch.float16, torch.bfloat16) for parameter in twin.parameters()):
        twin.float()
    refused: dict[str, str] = {}
    try:
        faults, notes = find_training_faults(twin, groups, observe, tolerance)
    except GroupError as error:
        refused, groups = _without_refused(twin, groups, error)
        faults, notes = find_training_faults(twin, groups, observe, tolerance) if groups else ({}, [])
    refused |= faults
    groups = [group for group in groups if group.name not in refused]
    if not groups:
        return refused, notes
    try:
        gated = GatedModel(twin, groups, target_sparsity=KEEP_ALL, form=form).eval()
    except GroupError as error:
        # In training mode nothing was compared.
        impossible, groups = _without_refused(twin, groups, error)
        refused |= impossible
        if not groups:
            return refused, notes
        gated = GatedModel(twin, groups, target_sparsity=KEEP_ALL, form=form).eval()
    _, faults = find_faults(gated, observe, tolerance=tolerance)
    if EVERYTHING in faults:
        return refused | {group.name: faults[EVERYTHING] for group in groups}, notes
    if _effect(gated, observe) > 10 * tolerance:
        return refused | faults, notes
    return refused | faults, [
        *notes,
        "the units hardly show in the outputs on these inputs, so that the proof says little",
    ]


def _without_refused(
    model: nn.Module, groups: Sequence[PruneGroup], error: GroupError
) -> tuple[dict[str, str], list[PruneGroup]]:
    """Reasons against groups that cannot be gated by themselves, by name, and the other groups.

    Raises:
        GroupError: What all of them raise together, where each can be gated.
    """
    refused: dict[str, str] = {}
    for group in groups:
        try:
            GatedModel(model, [group], target_sparsity=KEEP_ALL).detach()
        except GroupError as alone:
            refused[group.name] = str(alone)
    if not refused:
        raise error
    return refused, [group for group in groups if group.name not in refused]


@torch.no_grad()
def _effect(gated: GatedModel, observe: Observe) -> float:
    """How far outputs change when one unit of each group stays, and none of a group that has but one."""
    least = torch.cat([torch.arange(group.units) < min(group.units - 1, group.fewest) for group in gated.groups])
    with _awake(gated.model):
        with gated.gates.fixed(torch.ones(len(least))):
            dense = run_seeded(observe, gated.model)
        with gated.gates.fixed(least.float()):
            return relative_difference(dense, run_seeded(observe, gated.model))


@contextmanager
def _awake(model: nn.Module) -> Iterator[None]:
    """Parameters that would hide an error have other values meanwhile.

    Those are near 0, as the scale of a fresh residual branch, or all alike, as the weight of a fresh norm.
    """
    generator, before = torch.Generator().manual_seed(0), {}
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.is_floating_point() or not parameter.numel():
                continue
            noise = 0.1 * torch.randn(parameter.shape, generator=generator)
            if parameter.square().mean().sqrt() < _DORMANT:
                before[parameter] = parameter.clone()
                parameter.copy_(noise)
            elif (parameter == parameter.flatten()[0]).all():
                before[parameter] = parameter.clone()
                parameter.mul_(1 + noise.to(parameter.device))
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, values in before.items():
                parameter.copy_(values)
