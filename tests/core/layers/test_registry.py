"""Layers of one's own: what is registered for a class, and what goes without it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import l0prune
from l0prune.discovery import Tracer, module_rule
from l0prune.layers import Layer, open_norm, register


class Plain(nn.Module):
    """Looks like nn.Linear, and derives from nothing."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.in_features, self.out_features = inputs, outputs
        self.weight = nn.Parameter(torch.randn(outputs, inputs))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight)


class OutputsAlone(Plain):
    """Keeps the number of its outputs alone."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        del self.in_features


class Derived(nn.Linear):
    """Computes as nn.Linear does."""


class Factored(nn.Linear):
    """Derives from nn.Linear, and has no weight of its own."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        del self.weight
        self.left, self.right = nn.Parameter(torch.randn(outputs, 3)), nn.Parameter(torch.randn(3, inputs))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.right.T @ self.left.T + self.bias


def trained(pruner: l0prune.L0Pruner, x: Tensor) -> Tensor:
    """Some steps with gates, that make outputs large; the gated model's outputs then."""
    optimizer = torch.optim.Adam(pruner.parameter_groups(lr=1e-3))
    for _ in range(20):
        loss = pruner.penalty() - pruner.model(x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        pruner.step()
    with torch.no_grad():
        return pruner.model.eval()(x)


def halved(model: nn.Module, x: Tensor) -> nn.Module:
    return l0prune.prune(model, (x,), target_sparsity=0.5, importance="magnitude")


@pytest.mark.parametrize("make", [Plain, Derived, OutputsAlone])
def test_a_linear_class_of_ones_own_says_how_wide_it_is_after_a_cut(make: type[nn.Module]) -> None:
    first, second, third = halved(nn.Sequential(make(6, 8), make(8, 10), make(10, 2)), torch.randn(3, 6)).children()
    for before, after in ((first, second), (second, third)):
        width = len(before.weight)  # pyright: ignore
        assert before.out_features == width < 10
        assert getattr(after, "in_features", width) == width == after.weight.shape[1]  # pyright: ignore
    assert second.out_features < 10
    assert third.out_features == 2


def test_a_class_that_derives_from_linear_may_have_no_weight() -> None:
    student = halved(nn.Sequential(Factored(6, 8), nn.Linear(8, 2)), torch.randn(3, 6))
    assert student(torch.randn(3, 6)).shape == (3, 2)


def test_what_looks_like_a_linear_layer_counts_as_one() -> None:
    found = l0prune.discover(nn.Sequential(Plain(6, 8), Plain(8, 2)), lambda model: model(torch.randn(3, 6)))
    assert found.hidden_units == found.reached_units == 8


class Kept(nn.Module):
    """Keeps a reference to its weight, as recurrent layers do."""

    def __init__(self, inputs: int, rows: int) -> None:
        super().__init__()
        self.rows = rows
        self.weight = nn.Parameter(torch.randn(rows, inputs))
        self.references = [self.weight]

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.references[0].T


@pytest.mark.filterwarnings("ignore:the gates are at an expected sparsity")
def test_references_follow_gates_and_cuts_by_what_is_registered() -> None:
    def own(module: nn.Module) -> Tensor:
        gated = getattr(module, "parametrizations", None)
        return module.weight if gated is None else gated.weight.original  # pyright: ignore

    def use_gated(module: Any, args: object) -> None:
        module.references = [module.weight]

    def use_own(module: Any, *_: object) -> None:
        module.references = [own(module)]

    def follow(module: Any, stays: Any) -> None:
        cuts.append({key: len(indices) for key, indices in stays.items()})
        use_own(module)

    cuts: list[dict] = []
    model, x = nn.Sequential(Kept(6, 8), nn.ReLU(), Kept(8, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(3, 6)
    layer = Layer(
        units={("weight", 0): "row"}, sizes={"rows": ("weight", 0)}, cut=follow, before=use_gated, after=use_own
    )
    register(Kept, layer)
    found = l0prune.inspect(model, (x,))
    assert [(row.name, row.kind, row.proved) for row in found.rows] == [("0", "row", True), ("2", "row", True)]
    cuts.clear()
    pruner = l0prune.wrap(model, (x,), target_sparsity=0.5)
    expected = trained(pruner, x)
    first, _, second, _, last = student = pruner.finalize()
    torch.testing.assert_close(student(x), expected, rtol=1e-5, atol=1e-6)
    assert first.rows == second.weight.shape[1]
    assert second.rows == last.in_features
    assert {("weight", 0): first.rows} in cuts
    with pytest.raises(l0prune.ConfigError, match=r"layer is registered already: .*Kept; pass replace=True"):
        register(Kept, layer)
    register(Kept, layer, replace=True)


class Centred(nn.Module):
    """A normalisation that no family knows, and whose statistics no function of torch's gives."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.rand(channels) + 0.5), 1e-5

    def forward(self, x: Tensor) -> Tensor:
        centred = x - self.mean(x)
        return 2 * centred * torch.rsqrt(self.mean(centred.square()) + self.eps) * self.weight

    @staticmethod
    def mean(x: Tensor) -> Tensor:
        return x.cumsum(-1)[..., -1:] / x.shape[-1]


@pytest.mark.filterwarnings("ignore:the gates are at an expected sparsity")
def test_a_normalisation_of_ones_own_takes_its_statistics_over_what_is_open() -> None:
    def over_open(norm: Any, x: Tensor, opened: Any, weight: Any, bias: Any, dim: int) -> Tensor:
        return 2 * open_norm(x, opened, weight, bias, dim=dim, eps=norm.eps)

    model, x = nn.Sequential(nn.Linear(6, 8), Centred(8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(3, 6)
    assert l0prune.inspect(model, (x,)).rows == ()
    register(Centred, Layer(over_open=over_open))

    @module_rule(Centred)
    def _centred(tracer: Tracer, module: Any, args: tuple, kwargs: dict, out: Tensor) -> dict:
        channels = tracer.along(args[0], -1)
        tracer.unify(channels, tracer.along(module.weight, 0))
        if channels is not None:
            tracer.normed(-1, channels)
        return {-1: channels}

    found = l0prune.inspect(model, (x,))
    assert [(row.name, row.units, row.proved) for row in found.rows] == [("0", 8, True)]
    pruner = l0prune.wrap(model, (x,), target_sparsity=0.5)
    expected = trained(pruner, x)
    student = pruner.finalize()
    assert student[1].weight.numel() == student[0].out_features < 8  # pyright: ignore
    torch.testing.assert_close(student(x), expected, rtol=1e-5, atol=1e-6)


def test_a_size_that_no_tensor_has_is_refused_before_anything_is_cut() -> None:
    class Misnamed(Plain):
        pass

    register(Misnamed, Layer(sizes={"out_features": ("weights", 0)}))
    model, x = nn.Sequential(Misnamed(6, 8), nn.Linear(8, 2)), torch.randn(3, 6)
    line = "a registered layer has no such tensor: Misnamed, weights of dimension 0; mend its registration"
    assert line in l0prune.inspect(model, (x,)).refused["0"]
    (group,) = l0prune.discover(model, lambda model: model(x)).groups
    kept = {group.name: tuple(range(4))}
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    plan = l0prune.RemovalPlan(groups=(group,), kept=kept, shapes=shapes)
    with pytest.raises(l0prune.PlanError, match=line):
        l0prune.apply_plan(model, plan)
    assert {name: tuple(p.shape) for name, p in model.named_parameters()} == shapes


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: Layer(units={"weight": "row"}), "malformed registration of a layer: units"),  # pyright: ignore
        (lambda: Layer(units={("weight", 0): 3}), "malformed registration of a layer: units"),  # pyright: ignore
        (lambda: Layer(sizes={"rows": "weight"}), "malformed registration of a layer: sizes"),  # pyright: ignore
        (lambda: Layer(sizes=[]), "malformed registration of a layer: sizes"),  # pyright: ignore
        (lambda: register(nn.Linear(2, 2), Layer()), "cannot register a layer"),  # pyright: ignore
        (lambda: register(int, Layer()), "cannot register a layer"),  # pyright: ignore
        (lambda: register(Derived, {}), "cannot register a layer: Derived"),  # pyright: ignore
        (lambda: register(nn.Linear, Layer()), r"layer is registered already: torch\.nn\.modules\.linear\.Linear"),
    ],
)
def test_bad_registrations_are_refused(make: Any, line: str) -> None:
    with pytest.raises(l0prune.ConfigError, match=line) as error:
        make()
    assert len(str(error.value).splitlines()) == 1
