"""What each part of a network costs before and after the cut, by module path.

A part is a child of a list's element, or a module that stands beside a list: of a transformer the attention of each
layer, the feed-forward block of each layer, the projection before them. No name has a meaning here.
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from l0prune.errors import L0PruneError
from l0prune.measuring import macs_by_module
from l0prune.plugin import Benchable, get_plugin
from l0prune.removal import apply_plan
from l0prune.storage import read_plan, skeleton

_SECONDS = 10.0
"""Length of the input on which MACs are counted, where a plugin's inputs have a length."""
_NO_INPUT = "Multiply-accumulates of parts are not counted: the plugin names no input of a length."


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of a network, or several alike."""

    name: str
    """Its module path, with `*` for the numbers of several."""
    count: int = 1
    """How many modules of the dense network it stands for."""
    params_before: int
    params_after: int
    params_least: int
    """What stays when every group keeps the fewest units that removal can leave."""
    macs_before: int | None = None
    """Per `Parts.macs_per`; None where they could not be counted."""
    macs_after: int | None = None


@dataclass(frozen=True, kw_only=True)
class Parts:
    """All parts of a network, in its order."""

    rows: tuple[Part, ...]
    note: str = ""
    """What could not be counted, and why."""
    macs_per: str = ""
    """What multiply-accumulates are quoted for."""

    def by_pattern(self) -> tuple[Part, ...]:
        """Parts whose paths differ in numbers before their last name alone, taken together."""
        alike: dict[str, list[Part]] = {}
        for part in self.rows:
            alike.setdefault(re.sub(r"(?<![^.])\d+(?=\.)", "*", part.name), []).append(part)
        return tuple(_together(pattern, parts) for pattern, parts in alike.items())


def short_names(names: Sequence[str]) -> dict[str, str]:
    """The shortest ending of each module path that is no other's and does not begin with a number or `*`."""
    short: dict[str, str] = {}
    for name in names:
        pieces = name.split(".")
        endings = [".".join(pieces[begin:]) for begin in reversed(range(len(pieces)))]
        short[name] = next(
            (
                ending
                for ending in endings
                if not (ending[0] == "*" or ending[0].isdigit())
                and not any(f".{other}".endswith(f".{ending}") for other in names if other != name)
            ),
            name,
        )
    return short


def _together(name: str, parts: list[Part]) -> Part:
    def total(numbers: Iterable[int | None]) -> int | None:
        known = [number for number in numbers if number is not None]
        return sum(known) if known else None

    return Part(
        name=name,
        count=len(parts),
        params_before=sum(part.params_before for part in parts),
        params_after=sum(part.params_after for part in parts),
        params_least=sum(part.params_least for part in parts),
        macs_before=total(part.macs_before for part in parts),
        macs_after=total(part.macs_after for part in parts),
    )


def network_parts(description: Mapping[str, Any], folder: Path) -> Parts:
    """Parameters and multiply-accumulates of each part.

    Args:
        description: A run's model.json.
        folder: The run directory, for messages.

    Raises:
        L0PruneError: The plan is damaged.
    """
    plan = read_plan(description, folder)
    least = replace(plan, kept={group.name: tuple(range(group.least_units)) for group in plan.groups})
    sizes = [_sizes(shapes) for shapes in (plan.shapes, plan.pruned_shapes(), least.pruned_shapes())]
    try:
        dense = skeleton(description, plan, folder)
        pruned = apply_plan(skeleton(description, plan, folder), plan)
    except L0PruneError as error:
        return Parts(
            rows=_rows(sizes), note=f"Counted from the plan alone, buffers among the parameters: {error.what}."
        )
    parameters = {name for name, _ in dense.named_parameters()}
    sizes = [{name: size for name, size in each.items() if name in parameters} for each in sizes]
    plugin = get_plugin(str(description["plugin"]))
    if not isinstance(plugin, Benchable):
        return Parts(rows=_rows(sizes), note=_NO_INPUT)
    load = plugin.load(_SECONDS, 1)
    inputs = [tensor.to("meta") for tensor in load.inputs]
    try:
        macs = [macs_by_module(network, inputs) for network in (dense, pruned)]
    except RuntimeError as error:
        # What a forward pass computes may depend on values, which a network without weights lacks.
        note = f"Multiply-accumulates of parts could not be counted: {' '.join(str(error).split())[:200]}"
        return Parts(rows=_rows(sizes), note=note)
    # Of inputs that do not last there is no second.
    per = f"{load.unit}, in an input of {load.seconds:g} s" if load.seconds else load.name
    return Parts(rows=_rows(sizes, macs, load.seconds or 1.0), macs_per=per)


def _sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    return {name: math.prod(shape) for name, shape in shapes.items()}


def _rows(
    sizes: Sequence[Mapping[str, int]], macs: Sequence[Mapping[str, int]] = (), seconds: float = 1.0
) -> tuple[Part, ...]:
    """Sizes of tensors before and after the cut and at the least, and MACs of modules, put together by part."""
    modules = {name: name.rpartition(".")[0] or name for name in sizes[0]}
    splits = _above_lists(modules.values())
    params, costs = [Counter[str]() for _ in sizes], [Counter[str]() for _ in range(2)]
    for counts, each in zip(params, sizes, strict=True):
        for name, size in each.items():
            counts[_part_of(modules[name], splits)] += size
    for counts, found in zip(costs, macs, strict=False):
        for module, count in found.items():
            counts[_part_of(module, splits)] += count
    return tuple(
        Part(
            name=name,
            params_before=params[0][name],
            params_after=params[1][name],
            params_least=params[2][name],
            macs_before=round(costs[0][name] / seconds) if macs else None,
            macs_after=round(costs[1][name] / seconds) if macs else None,
        )
        for name in dict.fromkeys([*params[0], *costs[0]])
    )


def _above_lists(modules: Iterable[str]) -> set[str]:
    """Paths of lists, and of everything above one: these are split into their children."""
    above: set[str] = set()
    for module in modules:
        pieces = module.split(".")
        for depth, piece in enumerate(pieces):
            if piece.isdigit():
                above |= {".".join(pieces[:end]) for end in range(1, depth + 1)}
    return above


def _part_of(module: str, splits: Collection[str]) -> str:
    pieces = module.split(".")
    for end in range(1, len(pieces) + 1):
        path = ".".join(pieces[:end])
        if path not in splits and not pieces[end - 1].isdigit():
            return path
    return module
