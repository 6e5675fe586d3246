"""What stands in a model for its gates: parametrizations of gated tensors, and the open channels of norms.

Legend: C channels of a norm.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from l0prune.gates.fused_gating import FusedGating
from l0prune.gates.fused_layout import Standing
from l0prune.gates.gates import Gates
from l0prune.layers import OpenChannels
from l0prune.removal import scale_along
from l0prune.support import own_modules, own_parameters, parametrizations_cached, parametrized_anew, state_to_pickle


class GatedTensor(nn.Module):
    """Parametrization: the tensor times the gates that stand on it, and zero while a block it ends is empty."""

    def __init__(self, gates: Gates, standing: Standing) -> None:
        super().__init__()
        # A tuple hides the gates from `parameters()`: they belong to the gated model alone.
        self._gates, self._standing = (gates,), standing
        self.fused: tuple[FusedGating, int] | None = None
        """What computes many gated tensors at once, and this one's number there."""

    def forward(self, tensor: Tensor) -> Tensor:
        """The tensor as it is trained -> the tensor that the model computes with."""
        if self.fused is not None:
            fused, number = self.fused
            gated = fused.weight(number, tensor)
            if gated is not None:
                return gated
        gates = self._gates[0]
        for g, place in self._standing.places:
            tensor = tensor * scale_along(place, gates.of(g, self.training), tensor)
        for g in self._standing.alive_with:
            tensor = tensor * (gates.of(g, self.training).detach() > 0).any().to(tensor)
        return tensor


class NormGates:
    """Which channels of a norm are open: (C,) 1 for those of open units and of none, 0 for those of closed ones."""

    def __init__(self, gates: Gates, standing: Standing, number: int) -> None:
        self._gates, self._standing, self._number = gates, standing, number
        self.fused: FusedGating | None = None
        """What computes those of all norms at once."""

    def __call__(self, training: bool) -> Tensor | OpenChannels:
        """The open channels now, for a norm in training mode or not."""
        opened = None if self.fused is None else self.fused.opened(self._number)
        if opened is not None:
            return opened
        opened = self._gates.log_alpha.new_ones(self._standing.shape)
        for g, place in self._standing.places:
            opened = opened * scale_along(place, (self._gates.of(g, training).detach() > 0).to(opened), opened)
        return opened


def shorten(module: nn.Module, name: str) -> None:
    """Let a gated tensor be looked up without calling the modules that stand for its gates, while it is known."""
    parametrized = vars(type(module))[name]

    def get(self: nn.Module) -> Tensor:
        if not parametrizations_cached():
            chain: nn.Module = own_modules(own_modules(self)["parametrizations"])[name]  # type: ignore[arg-type,assignment]
            gate, original = own_modules(chain).get("0"), own_parameters(chain).get("original")
            # Where there are several parametrizations, they have to be called one after the other.
            if (
                type(gate) is GatedTensor
                and gate.fused is not None
                and original is not None
                and "1" not in own_modules(chain)
            ):
                gated = gate.fused[0].weight(gate.fused[1], original)
                if gated is not None:
                    return gated
        return parametrized.fget(self)

    kind: Any = type(module)
    setattr(kind, name, property(get, parametrized.fset))
    kind.__reduce_ex__ = _pickled


def _pickled(module: nn.Module, protocol: object) -> tuple[Any, ...]:
    """What torch refuses for parametrized modules: it can be done where the class is known that they had before."""
    return _opened, (type(module).__bases__[0], tuple(module.parametrizations)), state_to_pickle(module)  # type: ignore[arg-type]


def _opened(kind: type[nn.Module], names: Sequence[str]) -> nn.Module:
    module = parametrized_anew(kind, names)
    for name in names:
        shorten(module, name)
    return module


def list_name(tensor: str) -> str:
    """Where a parametrized tensor's `ParametrizationList` stands."""
    path, _, name = tensor.rpartition(".")
    return f"{path}.parametrizations.{name}" if path else f"parametrizations.{name}"
