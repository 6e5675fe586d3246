"""Active parameters as a metric: of experts, of which a router picks a few for each token, as many as it picks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import lcm
from typing import Any, NamedTuple

from torch import nn

from l0prune.discovery import record
from l0prune.errors import ConfigError
from l0prune.groups import PruneGroup
from l0prune.size.counted import COUNTS
from l0prune.size.metric import Metric, Subject, register_metric
from l0prune.size.parameters import parameter_size, tensor_monomials
from l0prune.size.polynomial import SizeModel
from l0prune.size.wish import Wish
from l0prune.support import copied, one_line

_STACKED = 3
"""Dimensions of the weights of experts that stand one after the other in one tensor."""


class Picked(NamedTuple):
    """What a router picks for each token."""

    picked: int
    experts: int
    stacked: bool
    """Whether a tensor holds all experts along its first dimension, and not one expert."""


class ActiveParameters(Metric):
    """Parameters that take part for one token: those of a router's k experts of E, and all others.

    Experts of a list count k / E of the parameters of each: what a token uses on average if it may pick any. Networks
    without experts count as by the metric "params".
    """

    name, noun, units = "active-params", "active parameters", COUNTS

    def size(self, subject: Subject) -> SizeModel:
        """In E-th parts of a parameter where experts stand in lists of E."""
        picked = picked_experts(subject.model, subject.observe)
        if not picked:
            return subject.parameters or parameter_size(subject.model, subject.groups)
        return active_size(subject.model, subject.groups, picked)

    def _sparsity(self, size: SizeModel, wish: Wish) -> float:
        return super()._sparsity(size, wish if wish.most is None else replace(wish, most=wish.most * size.unit))


def active_size(model: nn.Module, groups: Sequence[PruneGroup], picked: Mapping[str, Picked]) -> SizeModel:
    """The active parameters as a polynomial of kept counts.

    Args:
        model: The dense model.
        groups: Its prune groups.
        picked: What is picked, by the parameters of experts.
    """
    parts = lcm(*(one.experts for one in picked.values() if not one.stacked))
    shapes: dict[str, tuple[int, ...]] = {}
    factors: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        shapes[name], factors[name] = tuple(parameter.shape), parts
        if (found := picked.get(name)) is not None:
            if found.stacked:
                shapes[name] = (found.picked, *shapes[name][1:])
            else:
                factors[name] = parts * found.picked // found.experts
    # However many experts stay, as many are picked.
    stacked = {name for name, one in picked.items() if one.stacked}
    standing = [
        replace(
            group, places=tuple(place for place in group.places if not (place.dim == 0 and place.tensor in stacked))
        )
        for group in groups
    ]
    return SizeModel(
        groups, tensor_monomials(shapes, standing, factors_of=factors), counts="active parameters", unit=parts
    )


def picked_experts(model: nn.Module, observe: Callable[[nn.Module], Any]) -> dict[str, Picked]:
    """What routers pick of experts, by the names of the experts' parameters.

    A router takes the k highest of E scores. The experts are the E modules of a list, or the E matrices of a stack, in
    the nearest module around it that has such.

    Args:
        model: The dense model.
        observe: Runs a model on example inputs.

    Raises:
        ConfigError: The forward pass fails.
    """
    if not any(_holders(model, "", extent) for extent in _extents(model)):
        return {}
    try:
        recording = record(copied(model), observe)
    except Exception as error:
        got = f"{type(error).__name__}: {one_line(error)}"
        raise ConfigError("metric cannot be counted", where="active-params", got=got) from error
    found: dict[str, Picked] = {}
    for value in recording.values:
        if value.operator != "topk" or value.call < 0:
            continue
        picked = value.arguments[1]
        scores = recording.values[value.arguments[0].number].shape
        dim = value.arguments[2] if len(value.arguments) > 2 else -1
        experts = scores[dim] if scores else 1
        path = recording.calls[value.call].path
        while picked < experts:
            if holders := _holders(model, path, experts):
                found |= {name: Picked(picked, experts, stacked) for name, stacked in holders.items()}
                break
            parent = path.rpartition(".")[0]
            # One of many layers has its own experts: a list of these is none.
            if not path or isinstance(model.get_submodule(parent), nn.ModuleList):
                break
            path = parent
    return found


def _extents(model: nn.Module) -> set[int]:
    """The numbers of experts that may stand in a model."""
    stacks = {parameter.shape[0] for parameter in model.parameters() if parameter.ndim >= _STACKED}
    return stacks | {len(module) for module in model.modules() if isinstance(module, nn.ModuleList)}


def _holders(model: nn.Module, path: str, experts: int) -> dict[str, bool]:
    """Parameters of so many experts inside a module, and whether they are stacked."""
    found: dict[str, bool] = {}
    for inner, module in model.get_submodule(path).named_modules(prefix=path):
        own = dict(module.named_parameters(recurse=False))
        if isinstance(module, nn.ModuleList) and len(module) == experts and len(set(map(type, module))) == 1:
            found |= {f"{inner}.{name}" if inner else name: False for name, _ in module.named_parameters()}
        elif any(tensor.ndim >= _STACKED and tensor.shape[0] == experts for tensor in own.values()) and not _is_layer(
            module
        ):
            held = {name: tensor for name, tensor in own.items() if tensor.shape[:1] == (experts,)}
            found |= {f"{inner}.{name}" if inner else name: True for name in held}
    return found


def _is_layer(module: nn.Module) -> bool:
    """Whether a module is one of PyTorch's layers: the weight of a convolution has many dimensions too."""
    return type(module).__module__.startswith("torch.nn.")


register_metric(ActiveParameters())
