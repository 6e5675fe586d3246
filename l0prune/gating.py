"""Gates on a model: one flat vector of locations, acting on the weights that consume the units.

Legend: N units of all groups, one after the other; z (N,) gate values.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from l0prune.config import GateConfig
from l0prune.errors import GroupError
from l0prune.gated_norms import GatedNorm
from l0prune.groups import Place, PruneGroup, Role, check_groups
from l0prune.hard_concrete import HardConcrete
from l0prune.plan import RemovalPlan, make_plan, model_shapes
from l0prune.removal import apply_plan, scale_along
from l0prune.selection import budget_for, kept_indices, select
from l0prune.size_model import SizeModel, parameter_size


class Gates(nn.Module):
    """The gates of all groups.

    Args:
        groups: The prune groups.
        size_model: Their size.
        budget: The largest size that the deterministic selection may have.
        config: Distribution and starting values.
        reference: Gives dtype and device.
    """

    def __init__(
        self, groups: Sequence[PruneGroup], size_model: SizeModel, budget: int, config: GateConfig, reference: Tensor
    ) -> None:
        super().__init__()
        self.groups, self.size_model, self.budget, self.config = tuple(groups), size_model, budget, config
        self.distribution = HardConcrete(temperature=config.temperature, low=config.low, high=config.high)
        starts = [self.distribution.location(config.drop_rate_of(group.kind)) for group in groups]
        units = torch.tensor([group.units for group in groups])
        start = torch.tensor(starts, dtype=torch.float64).repeat_interleave(units)
        # A little noise breaks ties between units that begin alike.
        start = start + 0.01 * torch.randn(len(start), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self.log_alpha = nn.Parameter(start.to(device=reference.device, dtype=reference.dtype))
        self._units = [group.units for group in groups]
        self._sampled: tuple[Tensor, ...] | None = None
        self._decided: tuple[Tensor, tuple[Tensor, ...]] | None = None
        self._fixed: tuple[Tensor, ...] | None = None

    def keep_probabilities(self) -> Tensor:
        """P(z != 0), (N,), differentiable."""
        return self.distribution.keep_probability(self.log_alpha)

    def sample(self) -> None:
        """Draw new gates for the coming forward passes in training mode."""
        self._sampled = self.distribution.sample(self.log_alpha).split(self._units)

    def select(self) -> np.ndarray:
        """The deterministic choice: (N,) bool, True for kept units."""
        # In float32 many a keep probability rounds to 1; log_alpha still tells them apart.
        scores = torch.sigmoid(self.log_alpha.detach().double() + self.distribution.open_shift).cpu().numpy()
        return select(scores, self.groups, self.size_model, self.budget, round_to=self.config.round_to)

    def decide(self) -> tuple[Tensor, ...]:
        """Deterministic gate values by group: 0 for closed units, the configured value for kept ones."""
        now = self.log_alpha.detach()
        # Compared by value: a fused optimizer writes without counting up the tensor's version.
        if self._decided is None or not _same(self._decided[0], now):
            kept = torch.from_numpy(self.select()).to(now.device)
            # Above 0 even where it underflows: a value of 0 stands for a closed unit.
            value = getattr(self.distribution, self.config.mask_value)(now).clamp_min(torch.finfo(now.dtype).tiny)
            self._decided = (now.clone(), (value * kept).split(self._units))
        return self._decided[1]

    def of(self, g: int, training: bool) -> Tensor:
        """Gate values (units,) of group number `g`: the sample in training, else the deterministic choice."""
        if self._fixed is not None:
            return self._fixed[g]
        if not training:
            return self.decide()[g]
        if self._sampled is None:
            self.sample()
        assert self._sampled is not None
        return self._sampled[g]

    @contextmanager
    def fixed(self, values: Tensor) -> Iterator[None]:
        """Hold all gates at `values` (N,) meanwhile."""
        before, self._fixed = self._fixed, values.to(self.log_alpha).split(self._units)
        try:
            yield
        finally:
            self._fixed = before

    def __deepcopy__(self, memo: dict) -> "Gates":
        """A copy without the last sample: its autograd graph cannot be copied."""
        sampled, self._sampled = self._sampled, None
        try:
            new = self.__class__.__new__(self.__class__)
            memo[id(self)] = new
            new.__dict__.update({key: copy.deepcopy(value, memo) for key, value in self.__dict__.items()})
            new._decided = None
            return new
        finally:
            self._sampled = sampled


class _GatedTensor(nn.Module):
    """Parametrization: the tensor times the gates that stand on it, and zero while a block it ends is empty."""

    def __init__(self, gates: Gates, places: Sequence[tuple[int, Place]], alive_with: Sequence[int]) -> None:
        super().__init__()
        # A tuple hides the gates from `parameters()`: they belong to the gated model alone.
        self._gates, self._places, self._alive_with = (gates,), tuple(places), tuple(alive_with)

    def forward(self, tensor: Tensor) -> Tensor:
        gates = self._gates[0]
        for g, place in self._places:
            tensor = tensor * scale_along(place, gates.of(g, self.training), tensor)
        for g in self._alive_with:
            tensor = tensor * (gates.of(g, self.training).detach() > 0).any()
        return tensor


class GatedModel(nn.Module):
    """A model with gates on its prune groups; `model` is trained as before.

    In training mode each forward pass of this module, or each call of `gates.sample()`, draws new gates. In evaluation
    mode the gates are the deterministic selection that meets the target: outputs are those of the pruned network.

    Args:
        model: The dense model; gates are attached to it in place.
        groups: Its prune groups.
        target_sparsity: Share of the parameters to remove, in (0, 1).
        config: Gate settings.

    Raises:
        GroupError: A group does not fit the model.
        TargetError: The target is out of range or more than can be removed.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[PruneGroup],
        *,
        target_sparsity: float,
        config: GateConfig | None = None,
    ) -> None:
        super().__init__()
        shapes = model_shapes(model)
        check_groups(groups, shapes)
        self.model = model
        self.groups = tuple(groups)
        self.size_model = parameter_size(model, groups)
        self.target_sparsity = target_sparsity
        self.dense_shapes = shapes
        config = config or GateConfig()
        budget = budget_for(self.size_model, target_sparsity, round_to=config.round_to)
        self.gates = Gates(groups, self.size_model, budget, config, next(model.parameters()))
        self._attach()

    def forward(self, *args, **kwargs):
        """The model's own forward; in training mode with newly drawn gates."""
        if self.training:
            self.gates.sample()
        return self.model(*args, **kwargs)

    def expected_sparsity(self) -> Tensor:
        """1 - expected size / dense size; float64 scalar, differentiable in the gates."""
        return 1 - self.size_model.expected(self.gates.keep_probabilities()) / self.size_model.total

    def plan(self, kept: np.ndarray | None = None) -> RemovalPlan:
        """The removal plan of the deterministic selection, or of a given one (N,)."""
        kept = self.gates.select() if kept is None else kept
        return make_plan(self.groups, kept_indices(kept, self.groups), self.dense_shapes)

    def gate_values(self) -> dict[str, Tensor]:
        """The deterministic gate values (units,) by group name."""
        values = self.gates._fixed or self.gates.decide()
        return {group.name: value.detach() for group, value in zip(self.groups, values, strict=True)}

    def pruned(self) -> tuple[nn.Module, RemovalPlan]:
        """A copy of the model with the selection removed, and the plan; this model is untouched."""
        values = self.gate_values()
        kept = np.concatenate([value.cpu().numpy() > 0 for value in values.values()])
        plan = self.plan(kept)
        twin = copy.deepcopy(self)
        twin.detach()
        return apply_plan(twin.model, plan, values).eval(), plan

    def _attach(self) -> None:
        consumers: dict[str, list[tuple[int, Place]]] = {}
        switched: dict[str, list[int]] = {}
        for g, group in enumerate(self.groups):
            for place in group.places:
                if place.role is Role.CONSUMES:
                    consumers.setdefault(place.tensor, []).append((g, place))
            for tensor in group.alive_with:
                switched.setdefault(tensor, []).append(g)
        self._gated: list[str] = sorted({*consumers, *switched})
        for tensor in self._gated:
            owner, _, name = tensor.rpartition(".")
            gate = _GatedTensor(self.gates, consumers.get(tensor, ()), switched.get(tensor, ()))
            parametrize.register_parametrization(self.model.get_submodule(owner), name, gate)
        self._norms: list[str] = []
        for g, group in enumerate(self.groups):
            for norm in group.norms:
                self._gate_norm(g, group, norm.module, norm.channel_dim)

    def _gate_norm(self, g: int, group: PruneGroup, path: str, channel_dim: int) -> None:
        weight = f"{path}.weight"
        place = next((p for p in group.places if p.tensor == weight), None)
        if place is None or place.index.size != self.dense_shapes[weight][0]:
            raise GroupError("a gated norm must carry one group on all its channels", where=f"{group.name}, {path}")
        norm = self.model.get_submodule(path)
        if isinstance(norm, nn.GroupNorm) and norm.num_groups < norm.num_channels:
            owners = place.index // (norm.num_channels // norm.num_groups)
            shares = np.stack([(owners == n).sum(axis=1) for n in range(norm.num_groups)])
            if (shares != shares[0]).any():
                where = f"{group.name}, {path}"
                raise GroupError("a unit must take as many channels from each group of a gated GroupNorm", where=where)
        opened = partial(_opened, self.gates, g, place)
        owner, _, name = path.rpartition(".")
        parent = self.model.get_submodule(owner)
        setattr(parent, name, GatedNorm(getattr(parent, name), opened, channel_dim))
        self._norms.append(path)

    def detach(self) -> nn.Module:
        """Take the gates off again, without folding them in; returns the dense model."""
        for tensor in self._gated:
            owner, _, name = tensor.rpartition(".")
            module = self.model.get_submodule(owner)
            _own_class(module)
            parametrize.remove_parametrizations(module, name, leave_parametrized=False)
        for path in self._norms:
            owner, _, name = path.rpartition(".")
            parent = self.model.get_submodule(owner)
            setattr(parent, name, getattr(parent, name).dense)
        self._gated, self._norms = [], []
        return self.model


def _same(one: Tensor, other: Tensor) -> bool:
    return one.device == other.device and one.dtype == other.dtype and torch.equal(one, other)


def _opened(gates: Gates, g: int, place: Place, training: bool) -> Tensor:
    """(C,) 1 for the channels of open units, 0 for those of closed ones."""
    values = (gates.of(g, training).detach() > 0).to(gates.log_alpha.dtype)
    return scale_along(place, values, values.new_empty(place.index.size))


def _own_class(module: nn.Module) -> None:
    """Give a parametrized module a class of its own: deep copies share one, and removal would strip both."""
    cls = type(module)
    body = {key: value for key, value in vars(cls).items() if key not in ("__dict__", "__weakref__")}
    module.__class__ = type(cls.__name__, cls.__bases__, body)  # pyright: ignore[reportAttributeAccessIssue]
