"""Experts that a router picks: whole experts are units, each with its row of the router.

A router scores experts and picks the highest scores. What it gives are numbers of experts. Such a tensor is followed to
where it picks weights: there the experts of the weights are those of the router. Closed experts have the lowest scores
(`layers.over_open`), so they are picked no more.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from l0prune.discovery.rules.registry import tensors
from l0prune.discovery.traced import UNRANKED, Atoms, Reading
from l0prune.discovery.tracer import Tracer
from l0prune.layers import are_experts, same_forward, tensors_of_experts
from l0prune.support import own_modules

_KEPT = frozenset(
    "view _unsafe_view reshape _reshape_alias flatten unflatten squeeze unsqueeze clone detach contiguous alias "
    "_to_copy to expand permute transpose t slice index index_select sort repeat lift_fresh".split()
)
"""Operators after which numbers of units, in their first argument, are numbers of the same units."""


def follow_numbers(tracer: Tracer, name: str, operands: Sequence[Tensor], out: Any) -> None:
    """Carry what integer tensors count over to an operator's results."""
    if name in _KEPT and operands and (units := tracer.numbered(operands[0])) is not None:
        for result in tensors([out])[:1]:
            tracer.number(result, units)


def rank(tracer: Tracer, x: Tensor, picked: int, numbers: Tensor) -> bool:
    """The highest of the last dimension of a router's scores are picked.

    Returns:
        Whether it is a router: a layer without others in it that makes the scores and picks of them, or a linear layer
        whose outputs are the scores.
    """
    units = tracer.along(x, -1)
    leaf = None if units is None or picked >= len(units) else tracer.leaf_of(units)
    if units is None or leaf is None or leaf[1] != 0:
        return False
    maker = leaf[0].rpartition(".")[0]
    router, here = tracer.modules.get(maker), tracer.modules.get(tracer.here)
    alone = maker == tracer.here and bool(maker) and here is not None and not own_modules(here)
    if not (alone or (isinstance(router, nn.Linear) and same_forward(router, nn.Linear))):
        return False
    tracer.ranked(units, picked, f"{leaf[0]}:0", maker)
    tracer.trace.readings += [Reading(path, units) for path in {tracer.here, maker, maker.rpartition(".")[0]}]
    tracer.number(numbers, units)
    return True


def picked_experts(tracer: Tracer, x: Tensor, numbers: Tensor, dim: int) -> bool:
    """Whether numbers of experts pick along a dimension of a tensor: then its places are those experts."""
    units, places = tracer.numbered(numbers), tracer.along(x, dim)
    if units is None or places is None or len(units) != len(places):
        return False
    tracer.unify(units, places)
    if tracer.facts(x).constant:
        # The last weights of an expert carry its gate, as the output projection of a head does.
        key, best = int(units[0]), tracer.gated_experts.get(int(units[0]))
        if best is None or x.ndim >= best[0]:
            tracer.gated_experts[key] = x.ndim, places
    return True


def enter_module(tracer: Tracer, path: str, module: nn.Module, args: tuple, kwargs: dict) -> None:
    """Experts with stacked weights are picked by the numbers that their module is given."""
    if not are_experts(module):
        return
    units = next((u for x in tensors([*args, *kwargs.values()]) if (u := tracer.numbered(x)) is not None), None)
    known: dict[str, Atoms] = {}
    for name in tensors_of_experts(module):
        if (places := tracer.along(getattr(module, name), 0)) is not None:
            known[name] = places
    if units is None or any(len(places) != len(units) for places in known.values()):
        for places in known.values():
            tracer.pin(places, UNRANKED)
        return
    for name, places in known.items():
        tracer.unify(units, places)
        tracer.experts.add(int(places[0]))
        if name.startswith("down_proj"):
            tracer.consume(places)
    tracer.trace.readings.append(Reading(path, units))
