"""Gates on a model, acting on the weights that consume the units.

Legend: N units of all groups, one after the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from l0prune.config import GateConfig
from l0prune.errors import GroupError
from l0prune.gates.fused_gating import FusedGating
from l0prune.gates.fused_layout import Standing
from l0prune.gates.gated_tensors import GatedTensor, NormGates, list_name, shorten
from l0prune.gates.gates import Gates
from l0prune.groups import Place, PruneGroup, Role, check_groups
from l0prune.layers import GatedNorm, layer_of
from l0prune.removal import RemovalPlan, apply_plan, make_plan
from l0prune.size import SizeModel, budget_for, kept_indices, parameter_size
from l0prune.support import copied, model_shapes, own_modules, own_parameters, owners

# How far the expected size may be above the budget at the cut without a word, as a share of the budget.
_BEHIND = 0.02


class GatedModel(nn.Module):
    """A model with gates on its prune groups; `model` is trained as before.

    In training mode each forward pass of this module draws new gates, unless the last ones still wait for their
    backward pass; each call of `gates.sample()` does so in any case. In evaluation mode the gates are the deterministic
    selection that meets the target: outputs are those of the pruned network.

    Args:
        model: The dense model; gates are attached to it in place.
        groups: Its prune groups.
        target_sparsity: Share of the size to remove, in (0, 1).
        config: Gate settings.
        size_model: The size that the target counts; the parameters by default.

    Raises:
        GroupError: A group does not fit the model; the model is untouched then.
        TargetError: The target is out of range or more than can be removed.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[PruneGroup],
        *,
        target_sparsity: float,
        config: GateConfig | None = None,
        size_model: SizeModel | None = None,
    ) -> None:
        super().__init__()
        shapes = model_shapes(model)
        check_groups(groups, shapes)
        self.model = model
        self.groups = tuple(groups)
        self.parameter_model = parameter_size(model, groups)
        self.size_model = size_model or self.parameter_model
        self.target_sparsity = target_sparsity
        self.shapes = shapes
        self.dense_groups, self.dense_shapes = self.groups, shapes
        self.here = np.arange(sum(group.units for group in groups))
        """(N,) the units by their numbers in the dense model: some may be gone for good."""
        config = config or GateConfig()
        budget = budget_for(self.size_model, target_sparsity, round_to=config.round_to or 1)
        # Gates are real numbers, whatever else the model computes with.
        reference = next((p for p in model.parameters() if p.is_floating_point()), None)
        if reference is None:
            raise GroupError("the model has no floating-point parameter to put gates on", where=type(model).__name__)
        self.gates = Gates(groups, self.size_model, budget, config, reference)
        self._attach()

    def forward(self, *args, **kwargs):
        """The model's own forward; in training mode with gates drawn for it."""
        if self.training:
            self.gates.draw()
        return self.model(*args, **kwargs)

    def expected_sparsity(self) -> Tensor:
        """1 - expected size / dense size; float64 scalar, differentiable in the gates."""
        return 1 - self.size_model.expected(self.gates.keep_probabilities()) / self.size_model.total

    @torch.no_grad()
    def behind(self) -> str:
        """What to say before a cut where the gates are far from the target yet; else nothing."""
        left, budget = 1 - float(self.expected_sparsity()), 1 - self.target_sparsity
        if left <= budget * (1 + _BEHIND):
            return ""
        return (
            f"the gates are at an expected sparsity of {1 - left:.3f}, the target is {self.target_sparsity:.3f}: the "
            f"expected size is {left / budget - 1:.0%} above the budget, and the cut removes units that training still "
            'used; train longer, or choose the controller "projected", which is at the target at each step'
        )

    def plan(self, kept: np.ndarray | None = None) -> RemovalPlan:
        """The removal plan of the deterministic selection, or of a given one (N,), in the dense model's indices."""
        kept = self.gates.select() if kept is None else kept
        units = np.zeros(sum(group.units for group in self.dense_groups), dtype=bool)
        units[self.here[kept]] = True
        return make_plan(self.dense_groups, kept_indices(units, self.dense_groups), self.dense_shapes)

    def next_plan(self, kept: np.ndarray) -> RemovalPlan:
        """The same for the model as it is now, some units of which may be gone."""
        return make_plan(self.groups, kept_indices(kept, self.groups), self.shapes)

    def gate_values(self) -> dict[str, Tensor]:
        """The deterministic gate values (units,) by group name."""
        values = self.gates._fixed or self.gates.decide()
        return {group.name: value.detach() for group, value in zip(self.groups, values, strict=True)}

    def pruned(self) -> tuple[nn.Module, RemovalPlan]:
        """A copy of the model with the selection removed, and the plan; this model is untouched."""
        values = self.gate_values()
        kept = np.concatenate([value.cpu().numpy() > 0 for value in values.values()])
        # In training mode some weights change whenever they are looked at: a spectral norm is iterated.
        twin = copied(self).eval()
        twin.detach()
        return apply_plan(twin.model, self.next_plan(kept), values).eval(), self.plan(kept)

    def folded(self) -> nn.Module:
        """A dense copy without gates, whose weights the deterministic gate values are folded into.

        It computes what this model does in evaluation mode, save for gated norms: they take their statistics over
        closed units too. This model is untouched.
        """
        values = self.gate_values()
        # In training mode some weights change whenever they are looked at: a spectral norm is iterated.
        twin = copied(self).eval()
        twin.detach()
        everything = twin.next_plan(np.ones(len(self.here), dtype=bool))
        model = apply_plan(twin.model, everything, values).eval()
        held = owners(model)
        with torch.no_grad():
            for group in self.groups:
                for tensor in group.alive_with if not values[group.name].any() else ():
                    module, name = held[tensor][0]
                    getattr(module, name).zero_()
        return model

    def shrink(self, kept: np.ndarray) -> tuple[RemovalPlan, dict[str, tuple[nn.Parameter, nn.Parameter | None]]]:
        """Cut units out of the model in place, without folding: gates stay on what is left. Parameters are new ones.

        Args:
            kept: (N,) bool, True for units that are left.

        Returns:
            The plan, in the indices of the model as it was; by its name in the plan, each parameter before and after.

        Raises:
            GroupError: An emptied block holds all that reads another group's units; nothing is cut then.
        """
        plan = self.next_plan(kept)
        remaining = plan.remaining_groups()
        self._take_off()
        before = dict(self.model.named_parameters())
        after = dict(apply_plan(self.model, plan).named_parameters())
        # Around one emptied block all groups go.
        kept = np.concatenate([np.isin(np.arange(group.units), plan.kept[group.name]) for group in self.groups])
        numbers = [g for g, group in enumerate(self.groups) if plan.kept[group.name]]
        self.groups, self.shapes, self.here = remaining, plan.pruned_shapes(), self.here[kept]
        same = self.size_model is self.parameter_model
        self.parameter_model = self.parameter_model.restricted(self.groups, numbers)
        self.size_model = self.parameter_model if same else self.size_model.restricted(self.groups, numbers)
        self.gates.shrink(kept, self.groups, self.size_model)
        self._attach()
        return plan, {name: (parameter, after.get(name)) for name, parameter in before.items()}

    @property
    def first_gate(self) -> nn.Module:
        """A module that stands in the model as long as gates are attached."""
        module, name = self._gated[0]
        return next(gate for gate in module.parametrizations[name] if isinstance(gate, GatedTensor))  # type: ignore[index]

    def _attach(self) -> None:
        consumers: dict[str, list[tuple[int, Place]]] = {}
        switched: dict[str, list[int]] = {}
        for g, group in enumerate(self.groups):
            for place in group.places:
                if place.role is Role.CONSUMES:
                    consumers.setdefault(place.tensor, []).append((g, place))
            for tensor in group.alive_with:
                switched.setdefault(tensor, []).append(g)
        # Whatever can fail comes first: nothing is attached by halves.
        self._norms, norms, open_channels = self._gated_norms()
        held = owners(self.model)
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
        fused = FusedGating(self.gates, standings, [list_name(tensor) for tensor in tensors], norms)
        for number, tensor in enumerate(tensors):
            for module, name in held[tensor]:
                gate = GatedTensor(self.gates, standings[number])
                gate.train(module.training)
                parametrize.register_parametrization(module, name, gate)
                gate.fused = fused, number
                shorten(module, name)
        for opened in open_channels:
            opened.fused = fused
        for norm in self._norms:
            _replace(self.model, norm.dense, norm)
        self._hooks: list[RemovableHandle] = fused.attach(self.model)
        for module, _ in self._orders:
            self._hooks += _layer_hooks(module)
        self._nested = [m for m in self.model.modules() if isinstance(m, nn.TransformerEncoder) and m.use_nested_tensor]
        for module in self._nested:
            module.use_nested_tensor = False
        # Registering a parametrization tries it out, in training mode with a draw that no forward pass has asked for.
        self.gates.forget_sample()
        self.gates.follow(self.model)

    def _gated_norms(self) -> tuple[list[GatedNorm], list[Standing], list[NormGates]]:
        standing: dict[str, list[tuple[int, Place]]] = {}
        dims: dict[str, int] = {}
        for g, group in enumerate(self.groups):
            for norm in group.norms:
                place = _place_on_channels(group, norm.module, self.shapes)
                where = f"{group.name}, {norm.module}"
                if place is None:
                    raise GroupError("a gated norm must carry the group on a tensor of its own", where=where)
                if dims.setdefault(norm.module, norm.channel_dim) != norm.channel_dim:
                    raise GroupError("a norm is used on different dimensions", where=where)
                _check_shares(self.model.get_submodule(norm.module), place, where)
                standing.setdefault(norm.module, []).append((g, place))
        gated, standings, channels = [], [], []
        for number, (path, places) in enumerate(standing.items()):
            norm = self.model.get_submodule(path)
            tensors = {self.shapes[place.tensor] for _, place in places}
            if len(tensors) > 1:
                raise GroupError("groups stand on different tensors of a gated norm", where=path)
            extent = max(tensors.pop())
            standings.append(Standing((extent,), tuple((g, replace(place, dim=0)) for g, place in places)))
            channels.append(NormGates(self.gates, standings[-1], number))
            gated.append(GatedNorm(norm, channels[-1], dims[path]).train(norm.training))
        return gated, standings, channels

    def detach(self) -> nn.Module:
        """Take the gates off again, without folding them in; returns the dense model."""
        self._take_off()
        return self.model

    def _take_off(self) -> None:
        for hook in self._hooks:
            hook.remove()
        for module, name in self._gated:
            _own_class(module)
            parametrize.remove_parametrizations(module, name, leave_parametrized=False)
        for module, names in self._orders:
            # Optimizers know parameters by their number.
            own = own_parameters(module)
            own.update({name: own.pop(name) for name in names})
        for norm in self._norms:
            _replace(self.model, norm, norm.release())
        for module in self._nested:
            module.use_nested_tensor = True
        self._gated, self._orders, self._norms, self._hooks, self._nested = [], [], [], [], []


def _layer_hooks(module: nn.Module) -> list[RemovableHandle]:
    """Around the forward of a layer with gated weights: what its registration asks for."""
    layer, hooks = layer_of(module), []
    if layer.before is not None:
        hooks.append(module.register_forward_pre_hook(layer.before))
    if layer.after is not None:
        hooks.append(module.register_forward_hook(layer.after, always_call=True))
    return hooks


def _place_on_channels(group: PruneGroup, module: str, shapes: Mapping[str, tuple[int, ...]]) -> Place | None:
    """Where a group stands on a tensor of a norm's own that extends along its channels alone: its weight, if it can."""
    own = [
        place
        for place in group.places
        if place.tensor.rpartition(".")[0] == module
        and shapes[place.tensor][place.dim or 0] == prod(shapes[place.tensor])
    ]
    return min(own, key=lambda place: (not place.tensor.endswith(".weight"), place.tensor), default=None)


def _check_shares(norm: nn.Module, place: Place, where: str) -> None:
    if isinstance(norm, nn.GroupNorm) and norm.num_groups < norm.num_channels:
        rows = place.index // (norm.num_channels // norm.num_groups)
        shares = np.stack([(rows == n).sum(axis=1) for n in range(norm.num_groups)])
        if (shares != shares[0]).any():
            raise GroupError("a unit must take as many channels from each group of a gated GroupNorm", where=where)


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put `new` wherever `old` stands."""
    for parent in list(model.modules()):
        for name, child in list(own_modules(parent).items()):
            if child is old:
                setattr(parent, name, new)


def _own_class(module: nn.Module) -> None:
    """Give a parametrized module a class of its own: deep copies share one, and removal would strip both."""
    cls = type(module)
    # Without gates they are pickled, or not, as torch says.
    body = {key: v for key, v in vars(cls).items() if key not in ("__dict__", "__weakref__", "__reduce_ex__")}
    module.__class__ = type(cls.__name__, cls.__bases__, body)  # pyright: ignore[reportAttributeAccessIssue]
