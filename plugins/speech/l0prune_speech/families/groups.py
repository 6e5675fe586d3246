"""What can be pruned in any network: found by following its forward pass, and named as speech names it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from l0prune import ConfigError, GatedModel, PruneGroup, TraceError, discover
from l0prune.proof import EVERYTHING, KEEP_ALL, find_faults
from l0prune.support import is_inside

_KINDS = {"unit": "ffn"}
"""What the core calls the units of linear layers, and what speech does."""


def network_groups(
    model: nn.Module,
    observe: Callable[[nn.Module], Any],
    *,
    units: Sequence[str],
    ignored: Sequence[str] = (),
    own: Sequence[PruneGroup] = (),
) -> tuple[list[PruneGroup], dict[str, str]]:
    """The prune groups of a network that are proved on it.

    Args:
        model: Without gates.
        observe: Runs a network on example inputs and returns its outputs.
        units: Kinds of unit to prune.
        ignored: Dotted names of modules that are left as they are.
        own: Groups that following the forward pass does not find; nothing else in their modules is looked for.

    Returns:
        The groups; and why others are left alone, by name.

    Raises:
        ConfigError: There is nothing of these kinds, or no such module.
        TraceError: The forward pass cannot be followed.
    """
    modules = dict(model.named_modules())
    for name in ignored:
        if name not in modules:
            tops = ", ".join(name for name, _ in model.named_children())
            raise ConfigError("no such module to ignore", where=name, expected=f"a dotted name below {tops}")
    more = [group for group in own if not any(is_inside(place.tensor, *ignored) for place in group.places)]
    held = {group.attributes[0].module for group in own}
    found = discover(model, observe, ignored=(*ignored, *held))
    groups = [replace(group, kind=_KINDS.get(group.kind, group.kind)) for group in found.groups] + more
    chosen = [group for group in groups if group.kind in units]
    gated = GatedModel(model, chosen, target_sparsity=KEEP_ALL).eval() if chosen else None
    faults: dict[str, str] = {}
    if gated is not None:
        try:
            faults = dict(find_faults(gated, observe)[1])
        finally:
            gated.detach()
    if EVERYTHING in faults:
        raise TraceError("the groups of the network do not fit together", got=faults[EVERYTHING])
    proved = [group for group in chosen if group.name not in faults]
    if not proved:
        kinds = ", ".join(dict.fromkeys(group.kind for group in groups)) or "none"
        raise ConfigError("nothing to prune", got=f"units {', '.join(units)}", expected=f"of {kinds}")
    return proved, faults
