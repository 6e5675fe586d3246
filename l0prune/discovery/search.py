"""Prune groups of any module, found by following a forward pass."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from l0prune.discovery.depth import Depth, checked_depth, with_depth
from l0prune.discovery.follow import trace
from l0prune.discovery.found import Discovery
from l0prune.discovery.grouping import grouped
from l0prune.discovery.traced import Trace
from l0prune.errors import GroupError
from l0prune.support import called, is_inside, known_arguments, path_of, several


@known_arguments
def discover(
    model: nn.Module,
    observe: Callable[[nn.Module], Any],
    *,
    ignored: nn.Module | str | Sequence[nn.Module | str] = (),
    num_heads: Mapping[nn.Module, int] | None = None,
    time_limit: float = 60.0,
    depth: Depth | bool | None = None,
) -> Discovery:
    """Find the prune groups of a model by running it once in each mode.

    Args:
        model: Any module without gates; it is left as it is.
        observe: Runs a model on example inputs and returns its outputs.
        ignored: Modules, or their dotted names, whose own units and inputs are left alone; or one.
        num_heads: Heads of projections whose structure the forward pass does not show.
        time_limit: Seconds that tracing may take.
        depth: Also residual "blocks", or single "branches" of them, as units; True stands for blocks.

    Raises:
        ConfigError: `depth` is something else.
        GroupError: `ignored` or `num_heads` names a module that is not in the model.
        TraceError: The forward pass fails or takes too long.
    """
    depth, paths = checked_depth(depth), [path_of(model, module) for module in several(ignored)]
    found = trace(model, observe, time_limit=time_limit)
    for path in paths:
        for name, dims in found.leaves.items():
            if is_inside(name, path):
                found.pins += [(atoms, "told to ignore it") for atoms in dims if len(atoms)]
    for module, heads in (num_heads or {}).items():
        _tie_heads(found, path_of(model, module), heads)
    widths = grouped(model, found)
    return widths if depth is None else with_depth(model, widths, observe, depth, paths)


def _tie_heads(found: Trace, path: str, heads: int) -> None:
    atoms = found.leaves.get(f"{path}.weight" if path else "weight", [np.zeros(0, int)])[0]
    if not len(atoms):
        expected = "a linear projection that the forward pass uses"
        raise GroupError("no heads in this module", where=called(path), expected=expected)
    if heads < 1 or len(atoms) % heads:
        raise GroupError(
            "heads do not divide the outputs", where=called(path), got=heads, expected=f"a divisor of {len(atoms)}"
        )
    table = atoms.reshape(heads, -1)
    first = np.broadcast_to(table[:, :1], table.shape)
    found.same.append((table, first))
    found.heads.append(table[:, 0])
