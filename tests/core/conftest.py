"""Small networks with hand-written groups, as the tests of the core need them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from l0prune import Bypass, Norm, Place, PruneGroup, Role, consecutive


class Block(nn.Module):
    """The part that can be bypassed."""

    def __init__(self, width: int, first: int, second: int) -> None:
        super().__init__()
        self.square, self.down = nn.Linear(first, second), nn.Linear(second, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.tanh(self.square(x)))


class Network(nn.Module):
    """Two hidden layers, a norm between them, inside a residual stream."""

    def __init__(self, width: int = 5, first: int = 4, second: int = 6) -> None:
        super().__init__()
        self.up, self.norm = nn.Linear(width, first), nn.LayerNorm(first)
        self.block = Block(width, first, second)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x + self.block(torch.tanh(self.norm(self.up(x)))))


def place(tensor: str, dim: int | None, units: int, *, consumes: bool = False, width: int = 1) -> Place:
    role = Role.CONSUMES if consumes else Role.PRODUCES
    return Place(tensor=tensor, dim=dim, role=role, index=consecutive(units, width))


def network_groups(first: int = 4, second: int = 6) -> list[PruneGroup]:
    produced = [place(name, 0, first) for name in ("up.weight", "up.bias", "norm.weight", "norm.bias")]
    one = PruneGroup(
        name="first",
        kind="unit",
        units=first,
        places=(*produced, place("block.square.weight", 1, first, consumes=True)),
        norms=(Norm(module="norm"),),
    )
    two = PruneGroup(
        name="second",
        kind="unit",
        units=second,
        places=(
            place("block.square.weight", 0, second),
            place("block.square.bias", 0, second),
            place("block.down.weight", 1, second, consumes=True),
        ),
        alive_with=("block.down.bias",),
        bypass=Bypass(module="block"),
    )
    return [one, two]


@pytest.fixture
def make_network() -> Callable[..., tuple[nn.Module, list[PruneGroup]]]:
    """A network with random parameters and its groups."""

    def make(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, list[PruneGroup]]:
        torch.manual_seed(seed)
        network = Network().to(dtype)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.copy_(torch.randn_like(parameter))
        return network, network_groups()

    return make


@pytest.fixture
def drawn(rendered: None, monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that a test writes, all with room for their panels and nothing written beyond their edges."""
    figures: list[Figure] = []
    save = Figure.savefig

    def note(self: Figure, *places: Any, **settings: Any) -> None:
        save(self, *places, **settings)
        figures.append(self)
        for axes in self.axes:
            if axes.get_visible():
                assert axes.get_position().width > 0.15
                assert axes.get_position().height > 0.05
        # Letters have other widths at other resolutions.
        before, self.dpi = self.dpi, settings["dpi"]
        inches, box = self.get_size_inches(), self.get_tightbbox()
        self.dpi = before
        assert min(box.x0, box.y0) >= -0.02
        assert box.x1 <= inches[0] + 0.02
        assert box.y1 <= inches[1] + 0.02

    monkeypatch.setattr(Figure, "savefig", note)
    return figures
