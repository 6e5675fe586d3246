"""What can be pruned in any network: found by following its forward pass, and named as speech names it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from l0prune import ConfigError, PruneGroup, discover

_KINDS = {"unit": "ffn"}
"""What the core calls the units of linear layers, and what speech does."""


def network_groups(
    model: nn.Module,
    observe: Callable[[nn.Module], Any],
    *,
    units: Sequence[str],
    ignored: Sequence[str] = (),
) -> list[PruneGroup]:
    """The prune groups of a network.

    Args:
        model: Without gates.
        observe: Runs a network on example inputs and returns its outputs.
        units: Kinds of unit to prune.
        ignored: Dotted names of modules that are left as they are.

    Raises:
        ConfigError: There is nothing of these kinds, or no such module.
    """
    modules = dict(model.named_modules())
    for name in ignored:
        if name not in modules:
            tops = ", ".join(name for name, _ in model.named_children())
            raise ConfigError("no such module to ignore", where=name, expected=f"a dotted name below {tops}")
    found = discover(model, observe, ignored=tuple(ignored))
    groups = [replace(group, kind=_KINDS.get(group.kind, group.kind)) for group in found.groups]
    chosen = [group for group in groups if group.kind in units]
    if not chosen:
        kinds = ", ".join(dict.fromkeys(group.kind for group in groups)) or "none"
        raise ConfigError("nothing to prune", got=f"units {', '.join(units)}", expected=f"of {kinds}")
    return chosen
