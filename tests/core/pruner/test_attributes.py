"""Which numbers of a module count units, where values alone do not say it: the proof does."""

from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from l0prune import inspect, prune, wrap
from l0prune.proof import relative_difference
from l0prune.removal import apply_plan, make_plan
from l0prune.support import copied, model_shapes

X = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))


class Attention(nn.Module):
    """Four heads of width four."""

    numbers: ClassVar[dict[str, int]]

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(8, 16), nn.Linear(16, 3)
        self.q, self.k, self.v, self.out = (nn.Linear(16, 16) for _ in range(4))
        vars(self).update(self.numbers)

    def split(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        q, k, v = (self.split(layer(x)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.leave(x + self.out(attended))


class Width(Attention):
    """The attribute is the width of a head."""

    numbers: ClassVar = {"head": 4}

    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], -1, self.head)


class Count(Attention):
    """The same name and value, and it counts."""

    numbers: ClassVar = {"head": 4}

    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.head, -1)


class Both(Attention):
    """One of two attributes counts."""

    numbers: ClassVar = {"dim": 4, "heads": 4}

    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, self.dim)


class Named(Attention):
    """No name that says what it is, and no error where it is wrong."""

    numbers: ClassVar = {"h": 4}

    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.h, -1)


def rows(found: Any) -> dict[str, tuple[int, bool]]:
    return {row.kind: (row.units, row.proved) for row in found.rows}


@pytest.mark.parametrize("kind", [Width, Count, Both, Named])
def test_heads_go_whatever_the_equal_numbers_mean(kind: type[Attention]) -> None:
    torch.manual_seed(0)
    model = kind().eval()
    found = inspect(model, X)
    assert rows(found)["head"] == (4, True)
    assert all(row.proved for row in found.rows)
    heads = next(group for group in found.groups if group.kind == "head")
    adopted = [a.name for a in heads.attributes if a.name in kind.numbers]
    # Where both shrink, the cut forward pass fails: the module keeps its sizes then, whatever the attributes say.
    assert adopted == {Width: [], Count: ["head"], Both: ["dim", "heads"], Named: []}[kind]

    torch.manual_seed(0)
    smaller = prune(kind(), X, target_sparsity=0.5, round_to=1)
    assert smaller.q.out_features < 16
    assert smaller(torch.randn(3, 9, 8)).shape == (3, 9, 3)


def test_the_outputs_are_those_of_closed_heads() -> None:
    torch.manual_seed(0)
    model = Width().eval()
    found = inspect(model, X)
    kept = {g.name: (0, 3) if g.kind == "head" else tuple(range(g.units)) for g in found.groups}
    cut = apply_plan(copied(model), make_plan(found.groups, kept, model_shapes(model)))
    with torch.no_grad():
        # What reads heads 1 and 2 is zero.
        model.out.weight[:, 4:12] = 0
        assert relative_difference(model(X), cut(X)) < 1e-6


@pytest.mark.filterwarnings("ignore:the gates are at an expected sparsity")
def test_heads_of_any_meaning_go_in_a_loop_of_ones_own() -> None:
    torch.manual_seed(0)
    model = Width()
    pruner = wrap(model, X, target_sparsity=0.4, round_to=1)
    optimizer = torch.optim.SGD(pruner.parameter_groups(lr=1e-2))
    for _ in range(3):
        (model(X).square().mean() + pruner.penalty()).backward()
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()
    smaller = pruner.finalize()
    assert "q" in pruner.report.kept_units
    assert smaller(X).shape == (2, 5, 3)
    assert smaller.head == 4
