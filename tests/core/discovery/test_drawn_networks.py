"""All that is found in networks drawn at random is exact."""

from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import IMAGES, ROWS, Forward, cuts_are_exact, filled
from torch import Tensor, nn
from torch.nn import functional as F

from l0prune.discovery.search import discover


class Stage(nn.Module):
    """One step of a random network: width to width, over rows (B, C) or images (B, C, H, W)."""

    def __init__(self, kind: str, inside: int, outside: int, images: bool) -> None:
        super().__init__()

        def layer(a: int, b: int, **more: Any) -> nn.Module:
            return nn.Conv2d(a, b, 1, **more) if images else nn.Linear(a, b)

        self.kind, self.outside = kind, inside
        match kind:
            case "layer" | "concatenation":
                self.a = layer(inside, outside)
                self.outside = outside if kind == "layer" else inside + outside
            case "norm":
                self.a = nn.GroupNorm(2 - inside % 2, inside) if images else nn.LayerNorm(inside)
            case "statistics":
                self.a = (nn.BatchNorm2d if images else nn.BatchNorm1d)(inside)
            case "residual":
                self.a, self.b = layer(inside, outside), layer(outside, inside)
            case "gate":
                self.a, self.outside = layer(inside, 2 * outside), outside
            case "halves":
                self.a, self.b, self.c = layer(inside, 2 * outside), layer(outside, inside), layer(outside, inside)
            case "squeeze":
                self.a, self.b = layer(inside, outside), layer(outside, inside)
            case "depthwise":
                self.a = nn.Conv2d(inside, inside, 3, padding=1, groups=inside) if images else nn.PReLU(inside)
            case "scale":
                self.a = nn.Parameter(torch.empty((inside, 1, 1) if images else (inside,)))
            case "weight":
                self.a = nn.Parameter(torch.empty(inside, inside))

    def forward(self, x: Tensor) -> Tensor:
        return STEPPING.get(self.kind, lambda m, x: m.a(x))(self, x)


def gated_halves(m: Any, x: Tensor) -> Tensor:
    one, other = m.a(x).chunk(2, 1)
    return m.b(torch.tanh(one)) + m.c(other)


STEPPING: dict[str, Forward] = {
    "concatenation": lambda m, x: torch.cat([x, m.a(x)], 1),
    "residual": lambda m, x: x + m.b(torch.tanh(m.a(x))),
    "gate": lambda m, x: F.glu(m.a(x), 1),
    "halves": gated_halves,
    "squeeze": lambda m, x: x * torch.sigmoid(m.b(torch.tanh(m.a(x)))),
    "scale": lambda m, x: x * m.a,
    "weight": lambda m, x: (x.transpose(1, -1) @ m.a).transpose(1, -1),
    "activation": lambda m, x: torch.tanh(x),
}


class Drawn(nn.Module):
    """Stages one after the other, some of whose results are added to a later one through a layer of their own."""

    def __init__(self, kinds: Sequence[str], widths: Sequence[int], images: bool, skips: Sequence[bool]) -> None:
        super().__init__()
        self.images, width = images, 4
        self.enter = nn.Conv2d(3, width, 3) if images else nn.Linear(3, width)
        self.stages, self.skips = nn.ModuleList(), nn.ModuleDict()
        for n, (kind, outside, skip) in enumerate(zip(kinds, widths, skips, strict=False)):
            stage = Stage(kind, width, outside, images)
            if skip:
                self.skips[str(n)] = nn.Conv2d(4, stage.outside, 1) if images else nn.Linear(4, stage.outside)
            self.stages.append(stage)
            width = stage.outside
        self.leave = nn.Conv2d(width, 2, 1) if images else nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = first = self.enter(x)
        for n, stage in enumerate(self.stages):
            x = stage(x)
            x = x + self.skips[str(n)](first) if str(n) in self.skips else x
        return self.leave(x)


KINDS = "layer norm statistics depthwise".split() + list(STEPPING)


@settings(max_examples=16)
@given(
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=6),
    st.lists(st.integers(2, 5), min_size=6, max_size=6),
    st.booleans(),
    st.lists(st.booleans(), min_size=6, max_size=6),
)
def test_everything_found_in_a_random_network_is_exact(
    kinds: list[str], widths: list[int], images: bool, skips: list[bool]
) -> None:
    model = filled(Drawn(kinds, widths, images, skips))
    inputs = IMAGES if images else ROWS
    found = discover(model, lambda model: model(inputs))
    assert found.groups
    assert found.reached_units <= found.hidden_units
    cuts_are_exact(model, lambda model: model(inputs), found, seeds=1)
