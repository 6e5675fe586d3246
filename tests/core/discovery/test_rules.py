"""Rules of one's own: which are taken, and what happens to one that fails."""

import re
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import l0prune
from l0prune.discovery import Tracer, module_rule, operator_rule

NUMBERS = count()
Scale = Callable[[Tensor], Tensor]


@pytest.fixture
def double() -> Scale:
    """An operator that nobody knows yet, with a name of its own: rules stay registered."""

    @torch.library.custom_op(f"test_rules::double{next(NUMBERS)}", mutates_args=())
    def double(x: Tensor) -> Tensor:
        return 2 * x

    double.register_autograd(lambda ctx, grad: 2 * grad)
    return double


class Doubled(nn.Module):
    """Two linear layers, with an operator between the first one's outputs and the second's inputs, and a third."""

    def __init__(self, double: Scale) -> None:
        super().__init__()

        def call(x: Tensor) -> Tensor:
            # Custom operators themselves cannot be copied with a model; functions can.
            return double(x)

        self.double = call
        self.first, self.second, self.third = nn.Linear(6, 8), nn.Linear(8, 10), nn.Linear(10, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.second(self.double(self.first(x))).relu())


def inspected(double: Scale) -> l0prune.Inspection:
    return l0prune.inspect(Doubled(double), (torch.randn(3, 6),))


def left_alone(found: l0prune.Inspection) -> str:
    """Why the first layer's units are; the second's, which the operator does not touch, must be proved meanwhile."""
    assert [row.name for row in found.rows if row.proved] == ["second"]
    (alone,) = [alone for alone in found.left_alone if alone.name == "first"]
    assert alone.units == 8
    return alone.reason


def test_without_a_rule_units_are_left_alone(double: Scale) -> None:
    assert "which has no rule" in left_alone(inspected(double))


def same_features(tracer: Tracer, args: Any, out: Tensor) -> dict[int, Any]:
    return {dim: tracer.along(args[0], dim) for dim in range(out.ndim)}


@pytest.mark.parametrize("name", ["object", "packet", "overload", "qualified name", "name of an overload"])
def test_a_rule_is_registered_by_object_or_by_name(double: Any, name: str) -> None:
    packet = getattr(torch.ops.test_rules, str(double._qualname).partition("::")[2])
    operators = {
        "object": double,
        "packet": packet,
        "overload": packet.default,
        "qualified name": double._qualname,
        "name of an overload": f"{double._qualname}.default",
    }
    operator_rule(operators[name])(same_features)
    found = inspected(double)
    assert [(row.name, row.proved) for row in found.rows] == [("first", True), ("second", True)]


FAULTS: dict[str, tuple[Callable[[Tracer, Any, Tensor], Any], str]] = {
    "raises": (lambda tracer, args, out: 1 / 0, "raised ZeroDivisionError: division by zero"),
    "too few units": (
        lambda tracer, args, out: {1: tracer.along(args[0], 1)[:5]},  # pyright: ignore[reportOptionalSubscript]
        "returned 5 units for dimension 1 of a result, which is 8 long",
    ),
    "no such dimension": (
        lambda tracer, args, out: {2: tracer.along(args[0], 1)},
        r"returned units for dimension 2 of a result of shape \(3, 8\)",
    ),
    "a dimension twice": (
        lambda tracer, args, out: {1: tracer.along(args[0], 1), -1: tracer.along(args[0], 1)},
        "returned units twice for dimension 1",
    ),
    "another type": (lambda tracer, args, out: "units", "returned str for 1 result"),
    "other types in it": (lambda tracer, args, out: [3], "returned int for a result"),
    "for more results": (lambda tracer, args, out: [{}, {}], "returned 2 values for 1 result"),
    "numbers with a point": (lambda tracer, args, out: {1: np.ones(8)}, "returned an array of float64 for dimension 1"),
    "no array": (lambda tracer, args, out: {1: [*range(8)]}, "returned 8 values for dimension 1"),
    "units made up": (lambda tracer, args, out: {1: np.arange(8) + 10**9}, "that it has made up"),
    "made up ties": (
        lambda tracer, args, out: tracer.unify(tracer.along(args[0], 1), np.arange(8) + 10**9),
        "units that it has made up",
    ),
    "made up readers": (lambda tracer, args, out: tracer.consume(np.arange(8) - 20), "that it has made up"),
    "readers of another type": (
        lambda tracer, args, out: tracer.consume([1, 2]),
        "gave the tracer 2 values, not units",
    ),  # pyright: ignore
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_rule_that_fails_is_named_and_its_units_are_left_alone(double: Any, fault: str) -> None:
    rule, reason = FAULTS[fault]
    operator_rule(double)(rule)
    found = inspected(double)
    said = left_alone(found)
    assert said.startswith(f"read by {double._qualname}, whose rule ")
    assert len(said.splitlines()) == 1
    assert re.search(reason, said)
    assert [note for note in found.notes if double._qualname in note] != []


def test_what_a_failed_rule_has_tied_stays_tied(double: Any) -> None:
    """A rule that has settled heads before it fails must not leave their places apart."""

    @operator_rule(double)
    def _fails(tracer: Tracer, args: Any, out: Tensor) -> None:
        tracer.settle(args[0])
        raise ValueError

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            heads = self.first(x).view(-1, 4, 2).relu()
            return self.last(heads.flatten(1)) + double(heads).sum()

    model = Heads()
    x = torch.randn(3, 6)
    assert l0prune.inspect(model, (x,)).rows == ()


def test_a_rule_that_is_wrong_is_found_by_the_proof(double: Any) -> None:
    """It says that the result has fixed features, so that its reader would keep its width."""

    @operator_rule(double)
    def _forgets(tracer: Tracer, args: Any, out: Tensor) -> dict:
        tracer.consume(tracer.along(args[0], 1))
        return {}

    found = inspected(double)
    assert [row.name for row in found.rows if row.proved] == ["second"]


def test_a_rule_that_fails_in_a_whole_module_is_named_too() -> None:
    class Halved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(8))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.weight / 2

    model = nn.Sequential(nn.Linear(6, 8), Halved(), nn.Linear(8, 10), nn.ReLU(), nn.Linear(10, 2))
    x = torch.randn(3, 6)
    assert [row.name for row in l0prune.inspect(model, (x,)).rows] == ["0", "2"]

    @module_rule(Halved)
    def _halved(tracer: Tracer, module: Any, args: tuple, kwargs: dict, out: Tensor) -> dict:
        return {1: tracer.along(module.weight, 0)[1:]}  # pyright: ignore[reportOptionalSubscript]

    found = l0prune.inspect(model, (x,))
    assert [row.name for row in found.rows] == ["2"]
    assert found.refused["0"] == (
        "read by Halved, whose rule returned 7 units for dimension 1 of a result, which is 8 long, in 1"
    )

    @module_rule(Halved, replace=True)
    def _right(tracer: Tracer, module: Any, args: tuple, kwargs: dict, out: Tensor) -> dict:
        units = tracer.along(args[0], 1)
        tracer.unify(units, tracer.along(module.weight, 0))
        return {1: units}

    assert [(row.name, row.proved) for row in l0prune.inspect(model, (x,)).rows] == [("0", True), ("2", True)]


def test_a_name_that_is_taken_is_refused_unless_it_is_replaced(double: Any) -> None:
    operator_rule(double)(same_features)
    with pytest.raises(l0prune.ConfigError, match=f"operator has a rule already: {double._qualname}; .*replace=True"):
        operator_rule(double)
    with pytest.raises(l0prune.ConfigError, match=r"operator has a rule already: aten::mm"):
        operator_rule(torch.ops.aten.mm)
    with pytest.raises(l0prune.ConfigError, match=r"module class has a rule already: torch\.nn\.modules\.rnn\.RNNBase"):
        module_rule(nn.RNNBase)
    assert inspected(double).rows[0].proved

    @operator_rule(double, replace=True)
    def _pins(tracer: Tracer, args: Any, out: Tensor) -> dict:
        tracer.pin_all(args[0], "told to stay")
        return {}

    assert left_alone(inspected(double)).startswith("told to stay")


@pytest.mark.parametrize("wrong", ["mm", "torch.mm", "a::b::c", 3, torch.mm, None])
def test_what_is_no_operator_is_refused(wrong: object) -> None:
    with pytest.raises(l0prune.ConfigError, match="cannot register a rule for an operator") as error:
        operator_rule(wrong)
    assert len(str(error.value).splitlines()) == 1


def test_what_is_no_class_of_modules_or_no_function_is_refused(double: Any) -> None:
    for wrong in (nn.Linear(2, 2), dict, "Linear"):
        with pytest.raises(l0prune.ConfigError, match="cannot register a rule for a module"):
            module_rule(wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(l0prune.ConfigError, match="a rule is no function"):
        operator_rule(double)("same")  # pyright: ignore
    for register in (operator_rule, module_rule):
        with pytest.raises(l0prune.ConfigError, match="a rule is for nothing"):
            register()


def test_the_registries_are_attributes_of_the_package() -> None:
    """Without an import of theirs, in a process that has not imported them before."""
    lines = (
        "import sys, l0prune",
        "assert 'torch' not in sys.modules",
        "print(l0prune.discovery.operator_rule.__name__, l0prune.layers.register.__name__)",
    )
    done = subprocess.run([sys.executable, "-c", "; ".join(lines)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("operator_rule register\n", "")
