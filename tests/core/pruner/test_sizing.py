"""Widths that a forward pass derives or fixes: modules keep them after a cut, in methods that are written anew."""

import ast
import copy
import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import torchvision
from opened_alone import opened_alone
from random_plans import random_cut
from torch import Tensor, nn
from torch.nn import functional as F

from l0prune import GatedModel, Inspection, PlanError, inspect, load, prune, save
from l0prune.proof import relative_difference
from l0prune.removal import RemovalPlan, apply_plan

X = torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(0))


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


class Attention(nn.Module):
    """What of all kinds here is alike."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.qkv, self.out = nn.Linear(24, 24), nn.Linear(24, 72), nn.Linear(24, 24)
        self.leave, self.num_heads = nn.Linear(24, 5), 4

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


class Derived(Attention):
    """Width of heads and of the result by the input's width."""

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
        x = self.enter(x)
        B, N, C = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
        x = x + self.out(self.attend(q * (C // self.num_heads) ** -0.5, k, v).reshape(B, N, C))
        return self.leave(x) * scale


class Fixed(Attention):
    """Numbers; sizes in a sequence, a split and a comprehension; merged with the batch and taken apart again."""

    @decorated
    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        shape = (*x.shape[:-1], 4, 6)
        q, k, v = [t.view(shape).transpose(1, 2).reshape(-1, x.shape[1], 6) for t in self.qkv(x).split(24, dim=-1)]
        y = torch.bmm(torch.softmax(q @ k.mT, -1), v)
        batch = y.shape[0] // self.num_heads
        y = y.view(batch, self.num_heads, *y.shape[1:]).transpose(1, 2)
        return self.leave(x + self.out(torch.reshape(y, (x.shape[0], x.shape[1], 24))))


def heads_of(x: Tensor, heads: int, width: int = 6) -> Tensor:
    return x.view(x.shape[0], x.shape[1], heads, width).transpose(1, 2)


class Helped(Attention):
    """In a function of the file, with a derived number of heads."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        q, k, v = (heads_of(part, 24 // 6) for part in self.qkv(x).chunk(3, -1))
        return self.leave(x + self.out(self.attend(q, k, v).reshape(*x.shape[:-1], 24)))


class Talking(Attention):
    """Heads are mixed between the queries' and the values': what a view lays out evenly has to stay even."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        B, N, C = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
        shares = self.mix(torch.softmax(q @ k.mT, -1).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.leave(x + self.out((shares @ v).transpose(1, 2).reshape(B, N, C)))


KINDS = (Derived, Fixed, Helped, Talking)


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.__name__)
def inspected(request: pytest.FixtureRequest) -> tuple[type[nn.Module], nn.Module, Inspection]:
    torch.manual_seed(0)
    model = request.param().eval()
    return request.param, model, inspect(model, X)


def cut(model: nn.Module, groups: Any, seed: int = 0) -> tuple[Any, nn.Module, RemovalPlan]:
    gated = GatedModel(copy.deepcopy(model), groups, target_sparsity=1e-9).eval()
    return random_cut(gated, lambda m: m(X), np.random.default_rng(seed))[:3]


def test_heads_and_trunk_are_reached(inspected: tuple[type[nn.Module], nn.Module, Inspection]) -> None:
    _, _, found = inspected
    assert {(row.name, row.kind, row.units, row.proved) for row in found.rows} == {
        ("enter", "unit", 24, True),
        ("qkv", "head", 4, True),
    }
    assert all(row.written for row in found.rows)


def test_what_is_cut_is_right_in_other_batches_and_lengths(
    inspected: tuple[type[nn.Module], nn.Module, Inspection],
) -> None:
    _, model, found = inspected
    gated = GatedModel(copy.deepcopy(model), found.groups, target_sparsity=1e-9).eval()
    other = torch.randn(5, 3, 24, generator=torch.Generator().manual_seed(1))
    for seed in range(3):
        values = np.random.default_rng(seed).uniform(0.3, 0.9, 28) * (
            np.random.default_rng(seed).uniform(size=28) < 0.6
        )
        values[[0, 24]] = 0.5
        with torch.no_grad(), gated.gates.fixed(torch.from_numpy(values)):
            pruned, _ = gated.pruned()
            for x in (X, other, other[:1]):
                assert relative_difference(gated.model(x), pruned(x)) < 1e-5
    pruned.train()(other).square().mean().backward()
    assert all(parameter.grad is not None for parameter in pruned.parameters())


def test_what_is_cut_is_saved_and_opened_and_cut_again(
    inspected: tuple[type[nn.Module], nn.Module, Inspection], tmp_path: Path
) -> None:
    kind, model, found = inspected
    _, pruned, plan = cut(model, found.groups)
    assert isinstance(pruned, kind)
    assert type(pruned).__name__ == kind.__name__
    save(pruned, plan, tmp_path / "model")
    opened = load(tmp_path / "model", lambda: kind().eval())
    file = io.BytesIO()
    torch.save(pruned, file)
    file.seek(0)
    unpickled = torch.load(file, weights_only=False)
    for other in (opened, unpickled, copy.deepcopy(unpickled)):
        assert torch.equal(other(X), pruned(X))
    smaller = prune(pruned, X, target_sparsity=0.3)
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in pruned.parameters())
    assert smaller(X[:1]).shape == (1, 7, 5)


def test_the_methods_run_without_the_library_and_in_exported_programs(tmp_path: Path) -> None:
    # A class that a process without this file can import.
    module = torchvision.models.swin_transformer.ShiftedWindowAttention(24, [2, 2], [0, 0], 4).eval()
    images = torch.randn(2, 4, 4, 24, generator=torch.Generator().manual_seed(0))
    slim = prune(module, images, target_sparsity=0.4)
    outputs = opened_alone(slim, (images,), tmp_path)
    assert all(torch.equal(output, slim(images)) for output in outputs)
    pruned = prune(Derived().eval(), X, target_sparsity=0.4)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(pruned, (X,), dynamic_shapes={"x": {0: batch}})
    assert torch.equal(program.module()(X[:1]), pruned(X[:1]))


def test_a_module_that_needs_nothing_is_left_as_it_is() -> None:
    class Own(Attention):
        def forward(self, x: Tensor) -> Tensor:
            x = self.enter(x)
            q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, 6)).permute(2, 0, 3, 1, 4)
            return self.leave(x + self.out(self.attend(q, k, v).flatten(2)))

    found = inspect(Own(), X)
    assert [(row.proved, row.written) for row in found.rows] == [(True, ())] * 2
    assert not any(group.calls for group in found.groups)


def test_sources_are_read_only_where_a_cut_fails() -> None:
    class Open(Attention):
        """Its sizes follow from the weights."""

        def forward(self, x: Tensor) -> Tensor:
            x = self.enter(x)
            q, k, v = self.qkv(x).view(*x.shape[:-1], 3, -1, 6).permute(2, 0, 3, 1, 4)
            return self.leave(x + self.out(self.attend(q, k, v).reshape(*x.shape[:-1], -1)))

    with mock.patch("ast.parse", wraps=ast.parse) as parsed:
        found = inspect(Open(), X)
        assert [(row.proved, row.written) for row in found.rows] == [(True, ())] * 2
        assert not parsed.called
        assert all(row.proved and row.written for row in inspect(Derived(), X).rows)
        assert parsed.called


def test_a_random_cut_leaves_the_model_as_it_is() -> None:
    """Tensors that a cut replaces are shared with it, and others may be written to in its forward pass."""

    class Writing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.table = Derived(), nn.Embedding(7, 5, max_norm=1e-3)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) + self.table(torch.arange(7))

    model = Writing()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert inspect(model, X).groups
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_plan_is_refused_by_another_version_of_a_method() -> None:
    model = Derived().eval()
    found = inspect(model, X)
    plan = cut(model, found.groups)[2]
    assert RemovalPlan.from_json(plan.to_json()).to_json() == plan.to_json()

    class Derived2(Derived):
        def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
            return super().forward(x, scale=scale) + 0

    with pytest.raises(PlanError, match=r"another version of a method.*Derived2\.forward"):
        apply_plan(Derived2(), plan)


def test_a_size_in_a_private_name_is_left_alone() -> None:
    class Private(Attention):
        def __init__(self) -> None:
            super().__init__()
            self.__heads = 4

        def forward(self, x: Tensor) -> Tensor:
            x = self.enter(x)
            q, k, v = self.qkv(x).view(*x.shape[:-1], 3, self.__heads, 6).permute(2, 0, 3, 1, 4)
            return self.leave(x + self.out(self.attend(q, k, v).flatten(2)))

    refused = inspect(Private(), X).refused
    assert "the cut forward pass fails" in refused["qkv"]
