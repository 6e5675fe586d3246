"""Forms in which a forward pass fixes widths: units go, and what is cut equals what is closed on other inputs, too."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from random_plans import random_cut
from torch import Tensor, nn
from torch.nn import functional as F

from l0prune import GatedModel, inspect, load, save
from l0prune.groups import SizedCall
from l0prune.proof import relative_difference

X = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
OTHER = torch.randn(3, 9, 8, generator=torch.Generator().manual_seed(1))


class Network(nn.Module):
    """Four heads of width four between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave, self.out = nn.Linear(8, 16), nn.Linear(16, 3), nn.Linear(16, 16)
        self.inner, self.num_heads = 16, 4
        self.make()

    def make(self) -> None:
        self.qkv = nn.Linear(16, 48)

    def attended(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        return self.leave(x + self.out(self.attended(x)))


class LengthIsLeftOver(Network):
    """The method's own -1 is the length, and another size is a product of heads and their width."""

    def attended(self, x: Tensor) -> Tensor:
        query, key, value = (y.transpose(1, 2) for y in self.qkv(x).view(*x.shape[:2], 12, 4).chunk(3, 2))
        y = F.scaled_dot_product_attention(query, key, value)
        return y.transpose(1, 2).reshape(len(x), -1, self.inner)


class OfTorch(Network):
    """The same as a function of torch."""

    def attended(self, x: Tensor) -> Tensor:
        query, key, value = (y.transpose(1, 2) for y in self.qkv(x).view(*x.shape[:2], 12, 4).chunk(3, 2))
        y = F.scaled_dot_product_attention(query, key, value)
        return torch.reshape(y.transpose(1, 2), (len(x), -1, self.inner))


class Sliced(Network):
    """Queries, keys and values by slices, beginning and ending at numbers of the source."""

    def attended(self, x: Tensor) -> Tensor:
        packed = self.qkv(x)
        query, key, value = packed[..., :16], packed[..., 16:32], packed[..., 32:]
        query, key, value = (y.unflatten(-1, (-1, 4)).transpose(1, 2) for y in (query, key, value))
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


class Cascade(Network):
    """One call splits layers of a list, whose last parts differ in what is kept."""

    def make(self) -> None:
        self.parts = nn.ModuleList(nn.Linear(16, 3 + 3 + 8) for _ in range(2))

    def attended(self, x: Tensor) -> Tensor:
        found = []
        for part in self.parts:
            query, key, value = part(x).split([3, 3, 8], dim=2)
            found.append((query @ key.transpose(1, 2)).softmax(-1) @ value)
        return torch.cat(found, 2)


class Cached(Network):
    """A table of biases that evaluation mode keeps by device."""

    def make(self) -> None:
        self.qkv = nn.Linear(16, 48)
        self.biases = nn.Parameter(torch.randn(4, 12, generator=torch.Generator().manual_seed(0)))
        self.bias_cache: dict[str, Tensor] = {}

    def attended(self, x: Tensor) -> Tensor:
        places = torch.arange(x.shape[1])
        key_of = f"{x.device} {x.shape[1]}"
        if self.training or key_of not in self.bias_cache:
            self.bias_cache[key_of] = self.biases[:, (places[:, None] - places).abs()]
        query, key, value = (y.transpose(1, 2) for y in self.qkv(x).view(*x.shape[:2], -1, 4).chunk(3, 2))
        scores = query @ key.transpose(-2, -1) + self.bias_cache[key_of]
        return (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)


class ZerosMeetHeads(Network):
    """A bias that is made of zeros, and has no units until scores are added to it."""

    def attended(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        query, key, value = (y.transpose(1, 2) for y in self.qkv(x).view(*x.shape[:2], -1, 4).chunk(3, 2))
        bias = torch.zeros(1, self.num_heads, length, length) + torch.ones(length, length).tril().log()
        return ((query @ key.transpose(-2, -1) + bias).softmax(-1) @ value).transpose(1, 2).flatten(2)


KINDS = (LengthIsLeftOver, OfTorch, Sliced, Cascade, Cached, ZerosMeetHeads)


@pytest.mark.parametrize("kind", KINDS)
def test_units_go_and_the_cut_is_right_elsewhere(kind: type[Network], tmp_path: Path) -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return kind().eval()

    model = make()
    with torch.no_grad():
        # As a network that has been used: what it keeps is that of the dense one.
        model(X)
    found = inspect(model, X, form="module")
    assert all(row.proved for row in found.rows)
    wanted = "unit" if kind is Cascade else "head"
    assert sum(row.units for row in found.rows if row.kind == wanted) >= 4
    gated = GatedModel(model, found.groups, target_sparsity=1e-9).eval()
    for seed in range(3):
        expected, pruned, plan, _ = random_cut(gated, lambda m: (m(X), m(OTHER)), np.random.default_rng(seed))
        assert relative_difference(expected, (pruned(X), pruned(OTHER))) < 1e-5
    save(pruned, plan, tmp_path / "cut")
    for again in (load(tmp_path / "cut", make), pickle.loads(pickle.dumps(pruned))):
        assert relative_difference((pruned(X), pruned(OTHER)), (again(X), again(OTHER))) == 0


def test_a_size_that_is_none_is_refused() -> None:
    call = {"module": "", "method": "forward", "digest": "", "place": [1, 2], "sizes": [None, "2*3", "left"]}
    assert SizedCall.from_json(call).ways == ("own", "2*3", "left")
    with pytest.raises(ValueError, match="no size: x"):
        SizedCall.from_json({**call, "sizes": [None, "x"]})
