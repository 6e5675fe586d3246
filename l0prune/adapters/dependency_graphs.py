"""What torch-pruning's dependency graphs say, as prune groups.

Legend: a group of torch-pruning's lists items; an item is a dependency (a layer and the function that prunes it), the
channels that it prunes there, and for each of them the channel of the group's root layer that it follows. C channels of
the root layer, N units of all our groups one after the other.
"""

import copy
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from l0prune.errors import GroupError
from l0prune.groups import Attribute, Norm, Place, PruneGroup, Role
from l0prune.support import Convolution, NormWithStatistics

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_BATCH_NORMS = (NormWithStatistics,)
_CROSS_CHANNEL_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_ROOTS = (Convolution, nn.Linear)

Stands = tuple[str, int, Role]
"""A dimension of a tensor, and what the tensor does with the channels on it."""


def groups_of_graph(graph: Any, *, num_heads: Mapping[nn.Module, int] | None = None) -> list[PruneGroup]:
    """The groups of a graph that torch-pruning has built, for `inspect`, `prune`, `wrap` or `GatedModel`.

    Use it for layers that you have taught torch-pruning (`customized_pruners`) and for parameters outside layers
    (`unwrapped_parameters`). What a customised pruner cuts is found by letting it prune copies of the layer, one
    channel at a time. Two things are added to the graph:

    - Channels of grouped convolutions, of a GroupNorm and of heads are tied, as torch-pruning's pruners tie them.
    - A norm's statistics mix the channels, so the gated norm takes them over the open ones.

    What the graph has wrong, the proof refuses. A group whose channels cannot be told apart is left out with a warning.

    Args:
        graph: A `torch_pruning.DependencyGraph` after `build_dependency`.
        num_heads: Heads by query, key and value projection, as torch-pruning's pruners take them: heads then leave
            whole. Without them a graph knows no heads, and the proof refuses to prune inside the attention.

    Raises:
        GroupError: A customised pruner fails on a copy of its layer.
    """
    groups = []
    for name, members in groups_in(graph):
        try:
            group = _group(graph, name, members, num_heads or {})
        except _UnequalUnits as error:
            warnings.warn(f"left out: {error}", stacklevel=2)
            continue
        if group is not None:
            groups.append(group)
    return groups


class _UnequalUnits(GroupError):
    """Units of a group have different widths on a tensor, or do not stand on all of them."""


def groups_in(graph: Any) -> Iterator[tuple[str, Any]]:
    """Each group of the graph, and the name of the layer that its channels are the outputs of."""
    # What a customised pruner prunes apart at its inputs and outputs makes channels of its own, as a linear layer does.
    makers = tuple(
        kind
        for kind, pruner in graph.CUSTOMIZED_PRUNERS.items()
        if isinstance(kind, type) and pruner.prune_in_channels != pruner.prune_out_channels
    )
    with torch.enable_grad():
        for group in graph.get_all_groups(ignored_layers=[], root_module_types=(*_ROOTS, *makers)):
            name = graph._module2name[group[0].dep.target.module]
            parts = _parts(graph, group)
            yield from ((name if len(parts) == 1 else f"{name}#{n}", part) for n, part in enumerate(parts, 1))


def _parts(graph: Any, group: Any) -> list[Any]:
    """A group, or where layers read parts of its channels alone, a group for each of these.

    The latter are seen from the last layer that reads them, as torch-pruning's pruners see attention: where one
    projection makes queries, keys and values, a channel is one of the outputs of attention, and those three follow it.
    """
    if all(len(item.idxs) == len(group[0].idxs) for item in group):
        return [group]
    parts: list[Any] = []
    for item in reversed([*group]):
        module, handler = item.dep.target.module, item.dep.handler
        if not isinstance(module, _ROOTS) or not graph.is_in_channel_pruning_fn(handler):
            continue
        if not any(done.dep.target.module is module for part in parts for done in part):
            parts.append(graph.get_pruning_group(module, handler, item.idxs))
    return parts or [group]


def _group(graph: Any, name: str, members: Any, num_heads: Mapping[nn.Module, int]) -> PruneGroup | None:
    """One group in our form; None for the model's outputs, which nothing reads."""
    unit_of = _units(graph, name, members, num_heads)
    rows: dict[Stands, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    norms: dict[Norm, None] = {}
    attributes: dict[tuple[str, str], Attribute] = {}
    for item in members:
        module = item.dep.target.module
        places, counted = places_of(graph, item)
        for place, positions in places.items():
            for here, root in zip(positions, item.root_idxs, strict=True):
                if root is None:
                    raise _UnequalUnits("torch-pruning does not follow a channel", where=f"{name}, {place[0]}")
                row = rows[place][unit_of[root]]
                row.extend(index for index in here if index not in row)
        if _mixes(module):
            norms[Norm(module=_name(graph, module), channel_dim=_channel_dim(module))] = None
        attributes |= {(attribute.module, attribute.name): attribute for attribute in counted}
    if not any(role is Role.CONSUMES for *_, role in rows):
        return None
    units = len(set(unit_of.values()))
    heads = any(_is_head(graph, item, num_heads) for item in members)
    per_unit = len(unit_of) // units
    told = _attributes_of_heads(graph, members, num_heads) if heads else ()
    root = members[0].dep.target.module if not heads else None
    kind = "head" if heads else "conv" if isinstance(root, _CONVOLUTIONS + _TRANSPOSED) else "unit"
    return PruneGroup(
        name=name,
        kind=kind,
        units=units,
        places=tuple(_place(name, standing, rows[standing], units) for standing in rows),
        norms=tuple(norms),
        attributes=(
            *told,
            *(Attribute(module=a.module, name=a.name, per_unit=a.per_unit * per_unit) for a in attributes.values()),
        ),
    )


def _place(name: str, standing: Stands, rows: Mapping[int, list[int]], units: int) -> Place:
    tensor, dim, role = standing
    if len(rows) != units or len({len(indices) for indices in rows.values()}) != 1:
        raise _UnequalUnits("units of a torch-pruning group differ in width", where=f"{name}, {tensor}")
    return Place(tensor=tensor, dim=dim, role=role, index=np.array([rows[unit] for unit in sorted(rows)]))


def _units(graph: Any, name: str, members: Any, num_heads: Mapping[nn.Module, int]) -> dict[int, int]:
    """The unit of each root channel: heads leave whole, and groups of channels all lose the same ones."""
    channels = members[0].root_idxs
    total = len(channels)
    heads = max([num_heads[item.dep.target.module] for item in members if _is_head(graph, item, num_heads)], default=0)
    tied = heads or max(_channel_groups(graph, item) for item in members)
    if total % tied:
        what = "heads" if heads else "groups of channels"
        raise _UnequalUnits(f"{what} do not divide the channels", where=name, got=f"{tied} of {total} channels")
    share = total // tied
    return {channel: n // share if heads else n % share for n, channel in enumerate(channels)}


def _is_head(graph: Any, item: Any, num_heads: Mapping[nn.Module, int]) -> bool:
    module = item.dep.target.module
    # Parameters compare by value: they must not be looked up.
    return isinstance(module, nn.Module) and module in num_heads and graph.is_out_channel_pruning_fn(item.dep.handler)


def _channel_groups(graph: Any, item: Any) -> int:
    """Into how many groups a layer deals its channels, all of which must lose as many."""
    module = item.dep.target.module
    if isinstance(module, Convolution):
        return 1 if _is_depthwise(module) else module.groups
    if isinstance(module, nn.GroupNorm):
        return 1 if module.num_groups == module.num_channels else module.num_groups
    if type(module) in graph.CUSTOMIZED_PRUNERS:
        pruner = graph.CUSTOMIZED_PRUNERS[type(module)]
        reads = graph.is_in_channel_pruning_fn(item.dep.handler)
        return pruner.get_in_channel_groups(module) if reads else pruner.get_out_channel_groups(module)
    return 1


def _attributes_of_heads(graph: Any, members: Any, num_heads: Mapping[nn.Module, int]) -> Iterator[Attribute]:
    """What the attention around a projection counts: its heads, and the channels of all of them."""
    seen = set()
    for item in members:
        if not _is_head(graph, item, num_heads):
            continue
        path, heads = _name(graph, item.dep.target.module).rpartition(".")[0], num_heads[item.dep.target.module]
        channels = len(members[0].idxs)
        for name, per_unit in (("num_heads", 1), ("attn_dim", channels // heads), ("all_head_size", channels // heads)):
            if getattr(graph.model.get_submodule(path), name, None) == per_unit * heads and (path, name) not in seen:
                seen.add((path, name))
                yield Attribute(module=path, name=name, per_unit=per_unit)


def _name(graph: Any, module: Any) -> str:
    if isinstance(module, nn.Parameter):
        return next(name for name, parameter in graph.model.named_parameters() if parameter is module)
    return graph._module2name[module]


def places_of(graph: Any, item: Any) -> tuple[dict[Stands, list[list[int]]], list[Attribute]]:
    """Where an item's channels stand on the tensors of its layer, and numbers on it that count them.

    Returns:
        For each dimension of each tensor the positions of each channel, in the order of `item.idxs`; and the numbers.
    """
    module, handler = item.dep.target.module, item.dep.handler
    reads = graph.is_in_channel_pruning_fn(handler)
    role = Role.CONSUMES if reads else Role.PRODUCES
    if isinstance(module, nn.Parameter):
        dim = item.dep.target.pruning_dim % module.ndim
        return {(_name(graph, module), dim, Role.PRODUCES): [[i] for i in item.idxs]}, []
    tensors = [*module.named_parameters(), *module.named_buffers()] if isinstance(module, nn.Module) else []
    if not tensors:
        return {}, []
    name, names = _name(graph, module), _first_names(graph.model)
    prefix = f"{name}." if name else ""
    standing = None if type(module) in graph.CUSTOMIZED_PRUNERS else _standing(module, reads)
    if standing is not None:
        # The groups of a grouped convolution all read the same few columns.
        places = {(names[f"{prefix}{t}"], d, role): [[i % x.shape[d]] for i in item.idxs] for t, x, d, role in standing}
        return places, []
    pruner = graph.get_pruner_of_module(module)
    if pruner.prune_in_channels == pruner.prune_out_channels:
        role = Role.PRODUCES
    channels = (pruner.get_in_channels if reads else pruner.get_out_channels)(module)
    if channels is None:
        return {}, []
    positions, counted = _tried(name, module, handler, channels)
    places = {
        (names[f"{prefix}{tensor}"], dim, role): [found[i] for i in item.idxs]
        for (tensor, dim), found in positions.items()
    }
    return places, [Attribute(module=name, name=number, per_unit=fall) for number, fall in counted.items()]


def _first_names(model: nn.Module) -> dict[str, str]:
    """The name under which groups know each tensor: tied ones by that of the first."""
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    first: dict[int, str] = {}
    return {name: first.setdefault(id(tensor), name) for name, tensor in tensors}


def _standing(module: nn.Module, reads: bool) -> list[tuple[str, Tensor, int, Role]] | None:
    """The tensors of one of torch's layers that channels stand on, by their own numbers; None for other layers."""
    if isinstance(module, nn.PReLU) and module.num_parameters == 1:
        return []
    if isinstance(module, (*_BATCH_NORMS, *_CROSS_CHANNEL_NORMS, nn.PReLU)) or _is_depthwise(module):
        tensors = [*module.named_parameters(), *module.named_buffers()]
        last = isinstance(module, (nn.LayerNorm, nn.RMSNorm))
        return [(tensor, x, x.ndim - 1 if last else 0, Role.PRODUCES) for tensor, x in tensors if x.ndim]
    if isinstance(module, (nn.Linear, *_CONVOLUTIONS, *_TRANSPOSED)):
        role = Role.CONSUMES if reads else Role.PRODUCES
        first = isinstance(module, _TRANSPOSED) == reads
        bias = [] if reads or module.bias is None else [("bias", module.bias, 0, role)]
        return [("weight", module.weight, 0 if first else 1, role), *bias]
    if isinstance(module, nn.Embedding):
        return [("weight", module.weight, 1, Role.PRODUCES)]
    return None


@torch.no_grad()
def _tried(
    name: str, module: nn.Module, handler: Callable[[nn.Module, list[int]], Any], channels: int
) -> tuple[dict[tuple[str, int], list[list[int]]], dict[str, int]]:
    """What a pruning function cuts, found by letting it prune copies of a layer whose weights are their own numbers.

    Returns:
        For each (tensor, dim) that loses anything the indices that go with each channel; and by how much each number on
        the layer falls with a channel, where it counts all of them.

    Raises:
        GroupError: The function fails.
    """

    def tensors(layer: nn.Module) -> dict[str, Tensor]:
        return {n: t for n, t in [*layer.named_parameters(), *layer.named_buffers()] if t.ndim}

    numbered = copy.deepcopy(module).double()
    for tensor in tensors(numbered).values():
        tensor.copy_(torch.arange(tensor.numel()).reshape(tensor.shape))
    before, gone, counted = tensors(numbered), defaultdict(list), {}
    for channel in range(channels):
        layer = copy.deepcopy(numbered)
        try:
            handler(layer, [channel])
        except Exception as error:
            got = f"{type(error).__name__}: {error}"
            where = f"{name} ({type(module).__name__})"
            raise GroupError("the pruning function of a layer fails", where=where, got=got) from error
        after = tensors(layer)
        for n, old in before.items():
            for dim in range(old.ndim):
                stride = int(np.prod(old.shape[dim + 1 :]))
                left = after[n].long() // stride % old.shape[dim]
                gone[n, dim].append(sorted({*range(old.shape[dim])} - {*left.flatten().tolist()}))
        for number, value in vars(numbered).items():
            fall = value - vars(layer)[number] if type(value) is int else 0
            if fall and value == fall * channels:
                counted[number] = fall
    return {key: found for key, found in gone.items() if any(found)}, counted


def _is_depthwise(module: Any) -> bool:
    return isinstance(module, _CONVOLUTIONS) and 1 < module.groups == module.in_channels == module.out_channels


def _mixes(module: Any) -> bool:
    if isinstance(module, nn.GroupNorm):
        return module.num_groups < module.num_channels
    return isinstance(module, _CROSS_CHANNEL_NORMS)


def _channel_dim(module: nn.Module) -> int:
    # torchvision and timm both have a LayerNorm2d that moves the channels to the end and back.
    return 1 if isinstance(module, nn.GroupNorm) or type(module).__name__.endswith("2d") else -1


def owners_of(groups: Sequence[PruneGroup]) -> dict[tuple[str, int], dict[int, int]]:
    """Whose each index of each (tensor, dim) is: the number of one of the N units."""
    owners: dict[tuple[str, int], dict[int, int]] = defaultdict(dict)
    first = 0
    for group in groups:
        for place in group.places:
            if place.dim is not None:
                for unit, row in enumerate(place.index.tolist()):
                    owners[place.tensor, place.dim].update(dict.fromkeys(row, first + unit))
        first += group.units
    return dict(owners)
