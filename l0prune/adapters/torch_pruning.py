"""Prune groups from a torch-pruning dependency graph. The only importer of torch_pruning.

Legend: a graph's group lists, for each dependency, pairs of an index there and the root layer's channel it follows.
"""

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from l0prune.errors import GroupError
from l0prune.groups import Norm, Place, PruneGroup, Role
from l0prune.support import NormWithStatistics

if TYPE_CHECKING:
    import torch_pruning

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_BATCH_NORMS = (NormWithStatistics,)
_CROSS_CHANNEL_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def groups_of_graph(graph: "torch_pruning.DependencyGraph") -> list[PruneGroup]:
    """The groups of a graph that torch-pruning has built, for `inspect`, `wrap` or `GatedModel`.

    Use it for layers that you have taught torch-pruning (`customized_pruners`). A graph knows a norm's channels but not
    that its statistics mix them: that is added here. What the graph has wrong, the proof refuses.

    Args:
        graph: After `build_dependency`.

    Raises:
        GroupError: A group holds a layer of a kind that is not known here, or units of different widths.
    """
    groups = []
    for members in graph.get_all_groups(ignored_layers=[]):
        root = graph._module2name[members[0].dep.target.module]
        rows: dict[tuple[str, int, Role], dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
        norms: dict[Norm, None] = {}
        for member in members:
            target, reads = member.dep.target, graph.is_in_channel_pruning_fn(member.dep.handler)
            for place in _places(graph, target.module, reads, root):
                for index, unit in zip(member.idxs, member.root_idxs, strict=True):
                    if index not in rows[place][unit]:
                        rows[place][unit].append(index)
            if _mixes(target.module):
                norms[Norm(module=_name(graph, target.module), channel_dim=_channel_dim(target.module))] = None
        if not any(role is Role.CONSUMES for *_, role in rows):
            continue  # the model's output
        groups.append(_group(root, members[0].dep.target.module, rows, tuple(norms)))
    return groups


def _group(root: str, module: nn.Module, rows: dict[tuple[str, int, Role], Any], norms: tuple[Norm, ...]) -> PruneGroup:
    units = len(next(iter(rows.values())))
    places = []
    for (tensor, dim, role), standing in rows.items():
        widths = {len(indices) for indices in standing.values()}
        if len(standing) != units or len(widths) != 1:
            raise GroupError("units of a torch-pruning group differ in width", where=f"{root}, {tensor}")
        index = np.array([standing[unit] for unit in sorted(standing)])
        places.append(Place(tensor=tensor, dim=dim, role=role, index=index))
    kind = "conv" if isinstance(module, _CONVOLUTIONS + _TRANSPOSED) else "unit"
    return PruneGroup(name=root, kind=kind, units=units, places=tuple(places), norms=norms)


def _name(graph: Any, module: Any) -> str:
    return graph._param_to_name[module] if isinstance(module, nn.Parameter) else graph._module2name[module]


def _places(graph: Any, module: Any, reads: bool, root: str) -> list[tuple[str, int, Role]]:
    """Which dimensions of which tensors of a layer a dependency cuts."""
    role = Role.CONSUMES if reads else Role.PRODUCES
    if isinstance(module, nn.Parameter):
        dim = next(dim for parameter, dim in graph.unwrapped_parameters if parameter is module)
        return [(_name(graph, module), dim, Role.PRODUCES)]
    if not list(module.named_parameters(recurse=False)) and not list(module.buffers(recurse=False)):
        return []
    name = _name(graph, module)
    if isinstance(module, (*_BATCH_NORMS, *_CROSS_CHANNEL_NORMS, nn.PReLU)) or _is_depthwise(module):
        tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        return [(f"{name}.{tensor}", 0, Role.PRODUCES) for tensor, value in tensors if value.ndim]
    if isinstance(module, (nn.Linear, *_CONVOLUTIONS)):
        dim = 1 if reads else 0
    elif isinstance(module, _TRANSPOSED):
        dim = 0 if reads else 1
    elif isinstance(module, nn.Embedding):
        return [(f"{name}.weight", 1, Role.PRODUCES)]
    else:
        raise GroupError(
            "no rule for a layer in a torch-pruning group", where=f"{root}, {name}", got=type(module).__name__
        )
    bias = [] if reads or module.bias is None else [(f"{name}.bias", 0, role)]
    return [(f"{name}.weight", dim, role), *bias]


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, _CONVOLUTIONS) and 1 < module.groups == module.in_channels


def _mixes(module: Any) -> bool:
    if isinstance(module, nn.GroupNorm):
        return module.num_groups < module.num_channels
    return isinstance(module, _CROSS_CHANNEL_NORMS)


def _channel_dim(module: nn.Module) -> int:
    # torchvision and timm both have a LayerNorm2d that moves the channels to the end and back.
    return 1 if isinstance(module, nn.GroupNorm) or type(module).__name__.endswith("2d") else -1
