"""Depth: residual blocks, or single branches, as units that own all of their tensors and can be skipped."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

from torch import nn

from l0prune.discovery.blocks import Blocks, Refused
from l0prune.discovery.found import Discovery, LeftAlone
from l0prune.discovery.recording import record
from l0prune.errors import ConfigError
from l0prune.groups import Place, PruneGroup, Role, consecutive
from l0prune.support import copied, is_inside, listed

Depth = Literal["blocks", "branches"]
DEPTHS: dict[str, str] = {"blocks": "block", "branches": "branch"}
"""What a unit may be, with the kind of its group."""


def checked_depth(depth: object) -> Depth | None:
    """What a caller says of depth: True stands for whole blocks, False and None for nothing.

    Raises:
        ConfigError: It is something else.
    """
    if depth in (None, False):
        return None
    if depth is True:
        return "blocks"
    if depth not in ("blocks", "branches"):
        raise ConfigError("no such depth", got=repr(depth), expected='"blocks" (or True) or "branches"')
    return depth


def with_depth(
    model: nn.Module,
    found: Discovery,
    observe: Callable[[nn.Module], Any],
    depth: Depth,
    ignored: Sequence[str] = (),
) -> Discovery:
    """Add groups of one unit each for the residual blocks, or branches, of a model.

    Args:
        model: The model; it is left as it is.
        found: What else can be pruned.
        observe: Runs a model on example inputs.
        depth: What a unit is.
        ignored: Paths of modules that are left alone.
    """
    blocks = Blocks(model, record(copied(model), observe))
    kind, groups, alone = DEPTHS[depth], list(found.groups), list(found.left_alone)
    taken, rescaled = {group.name for group in groups}, list[str]()
    for unit in blocks.units(whole=depth == "blocks"):
        try:
            bypasses, gated = blocks.skips(unit)
            paths = [bypass.module for bypass in bypasses]
            if any(is_inside(path, other) or is_inside(other, path) for path in paths for other in ignored):
                raise Refused("told to ignore it")
        except Refused as refused:
            cost = blocks.parameters_of(unit)
            alone.append(LeftAlone(name=unit.path, kind=kind, units=1, reason=str(refused), parameters=cost))
            continue
        name = next(n for n in (unit.path, *(f"{unit.path}#{i}" for i in range(2, 3 + len(taken)))) if n not in taken)
        taken.add(name)
        if blocks.rescaled(unit, gated):
            rescaled.append(name)
        places = [
            Place(
                tensor=tensor,
                dim=None,
                role=Role.CONSUMES if tensor in gated else Role.PRODUCES,
                index=consecutive(1),
            )
            for tensor, _ in model.named_parameters()
            if is_inside(tensor, *paths)
        ]
        first, *others = bypasses
        groups.append(
            PruneGroup(name=name, kind=kind, units=1, places=tuple(places), bypass=first, goes_along=tuple(others))
        )
    notes = (
        [f"a norm takes the scale of these gates away, so that training teaches them nothing: {listed(rescaled)}"]
        if rescaled
        else []
    )
    return replace(found, groups=tuple(groups), left_alone=tuple(alone), notes=(*found.notes, *notes))
