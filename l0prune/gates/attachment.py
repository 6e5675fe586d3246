"""Gates put on a model's layers, and taken off again: parametrizations of weights, gated norms, hooks.

Nothing here knows what gates say, or what a cut is.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import prod

import numpy as np
from torch import nn
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from l0prune.errors import GroupError
from l0prune.gates.fused_gating import FusedGating
from l0prune.gates.fused_layout import Standing
from l0prune.gates.gated_tensors import GatedTensor, NormGates, list_name, shorten
from l0prune.gates.gates import Gates
from l0prune.groups import Norm, Place, PruneGroup, Role
from l0prune.layers import GatedNorm, layer_of
from l0prune.support import own_modules, own_parameters, owners


class Attachment:
    """Gates on a model, from here on until `take_off`.

    Args:
        model: Gates are attached to it in place.
        groups: Its prune groups.
        gates: Their gates.
        shapes: `model_shapes` of the model.

    Raises:
        GroupError: A norm cannot be gated; the model is untouched then.
    """

    def __init__(
        self, model: nn.Module, groups: Sequence[PruneGroup], gates: Gates, shapes: Mapping[str, tuple[int, ...]]
    ) -> None:
        self.model = model
        consumers: dict[str, list[tuple[int, Place]]] = {}
        switched: dict[str, list[int]] = {}
        for g, group in enumerate(groups):
            for place in group.places:
                if place.role is Role.CONSUMES:
                    consumers.setdefault(place.tensor, []).append((g, place))
            for tensor in group.alive_with:
                switched.setdefault(tensor, []).append(g)
        # Whatever can fail comes first: nothing is attached by halves.
        self._norms, norms, open_channels = _gated_norms(model, groups, gates, shapes)
        held = owners(model)
        tensors = sorted({*consumers, *switched})
        self._gated = [(module, name) for tensor in tensors for module, name in held[tensor]]
        self._orders = [
            (module, list(own_parameters(module))) for module in {module: None for module, _ in self._gated}
        ]
        standings = []
        for tensor in tensors:
            first = getattr(*held[tensor][0])
            places, alive_with = tuple(consumers.get(tensor, ())), tuple(switched.get(tensor, ()))
            standings.append(Standing(tuple(first.shape), places, alive_with, kind=(first.dtype, first.device)))
        fused = FusedGating(gates, standings, [list_name(tensor) for tensor in tensors], norms)
        for number, tensor in enumerate(tensors):
            for module, name in held[tensor]:
                gate = GatedTensor(gates, standings[number])
                gate.train(module.training)
                parametrize.register_parametrization(module, name, gate)
                gate.fused = fused, number
                shorten(module, name)
        for opened in open_channels:
            opened.fused = fused
        _replace(model, {norm.dense: norm for norm in self._norms})
        self._hooks: list[RemovableHandle] = fused.attach(model)
        for module, _ in self._orders:
            self._hooks += _layer_hooks(module)
        self._nested = [m for m in model.modules() if isinstance(m, nn.TransformerEncoder) and m.use_nested_tensor]
        for module in self._nested:
            module.use_nested_tensor = False
        # Registering a parametrization tries it out, in training mode with a draw that no forward pass has asked for.
        gates.forget_sample()
        gates.follow(model)

    @property
    def first_gate(self) -> nn.Module:
        """A module that stands in the model as long as gates are attached."""
        module, name = self._gated[0]
        return next(gate for gate in module.parametrizations[name] if isinstance(gate, GatedTensor))  # type: ignore[index]

    def take_off(self) -> None:
        """Take the gates off again, without folding them in; the model is as it was before."""
        for hook in self._hooks:
            hook.remove()
        for module, name in self._gated:
            _own_class(module)
            parametrize.remove_parametrizations(module, name, leave_parametrized=False)
        for module, names in self._orders:
            # Optimizers know parameters by their number.
            own = own_parameters(module)
            own.update({name: own.pop(name) for name in names})
        _replace(self.model, {norm: norm.release() for norm in self._norms})
        for module in self._nested:
            module.use_nested_tensor = True
        self._gated, self._orders, self._norms, self._hooks, self._nested = [], [], [], [], []


def _gated_norms(
    model: nn.Module, groups: Sequence[PruneGroup], gates: Gates, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[list[GatedNorm], list[Standing], list[NormGates]]:
    standing: dict[str, list[tuple[int, Place]]] = {}
    dims: dict[str, int] = {}
    elsewhere = {norm.module for group in groups for norm in group.norms if norm.along is not None}
    for g, group in enumerate(groups):
        by_module: dict[str, list[Place]] = {}
        for place in group.places if group.norms else ():
            by_module.setdefault(place.tensor.rpartition(".")[0], []).append(place)
        for norm in group.norms:
            there = norm.module if norm.along is None else norm.along.rpartition(":")[0].rpartition(".")[0]
            place = _place_on_channels(by_module.get(there, ()), norm, shapes)
            where = f"{group.name}, {norm.module}"
            if place is None:
                raise GroupError("no tensor says where the group stands on a norm's channels", where=where)
            if dims.setdefault(norm.module, norm.channel_dim) != norm.channel_dim:
                raise GroupError("a norm is used on different dimensions", where=where)
            _check_shares(model.get_submodule(norm.module), place, where)
            standing.setdefault(norm.module, []).append((g, place))
    gated, standings, channels = [], [], []
    for number, (path, places) in enumerate(standing.items()):
        norm = model.get_submodule(path)
        extents = {shapes[place.tensor][place.dim or 0] for _, place in places}
        if len(extents) > 1:
            raise GroupError("groups stand on tensors of different lengths for one norm", where=path)
        along_channels = tuple((g, replace(place, dim=0)) for g, place in places)
        standings.append(Standing((extents.pop(),), along_channels))
        channels.append(NormGates(gates, standings[-1], number))
        along = path not in elsewhere
        gated.append(GatedNorm(norm, channels[-1], dims[path], along_channels=along).train(norm.training))
    return gated, standings, channels


def _place_on_channels(places: Iterable[Place], norm: Norm, shapes: Mapping[str, tuple[int, ...]]) -> Place | None:
    """Where a group stands on a norm's channels: on its weight, another tensor along them, or one that it names.

    Args:
        places: Of the group, on the tensors of the norm itself or of the module that holds the one it names.
        norm: The norm.
        shapes: Of every tensor.
    """
    if norm.along is not None:
        tensor, _, dim = norm.along.rpartition(":")
        return next((p for p in places if (p.tensor, str(p.dim)) == (tensor, dim)), None)
    own = [place for place in places if shapes[place.tensor][place.dim or 0] == prod(shapes[place.tensor])]
    return min(own, key=lambda place: (not place.tensor.endswith(".weight"), place.tensor), default=None)


def _layer_hooks(module: nn.Module) -> list[RemovableHandle]:
    """Around the forward of a layer with gated weights: what its registration asks for."""
    layer, hooks = layer_of(module), []
    if layer.before is not None:
        hooks.append(module.register_forward_pre_hook(layer.before))
    if layer.after is not None:
        hooks.append(module.register_forward_hook(layer.after, always_call=True))
    return hooks


def _check_shares(norm: nn.Module, place: Place, where: str) -> None:
    if isinstance(norm, nn.GroupNorm) and norm.num_groups < norm.num_channels:
        rows = place.index // (norm.num_channels // norm.num_groups)
        shares = np.stack([(rows == n).sum(axis=1) for n in range(norm.num_groups)])
        if (shares != shares[0]).any():
            raise GroupError("a unit must take as many channels from each group of a gated GroupNorm", where=where)


def _replace(model: nn.Module, new: Mapping[nn.Module, nn.Module]) -> None:
    """Put modules in the places of others, wherever these stand, in one pass."""
    for parent in list(model.modules()):
        for name, child in list(own_modules(parent).items()):
            if child is not None and child in new:
                setattr(parent, name, new[child])


def _own_class(module: nn.Module) -> None:
    """Give a parametrized module a class of its own: deep copies share one, and removal would strip both."""
    cls = type(module)
    # Without gates they are pickled, or not, as torch says.
    body = {key: v for key, v in vars(cls).items() if key not in ("__dict__", "__weakref__", "__reduce_ex__")}
    module.__class__ = type(cls.__name__, cls.__bases__, body)  # pyright: ignore[reportAttributeAccessIssue]
