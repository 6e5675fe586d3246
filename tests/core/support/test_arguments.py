"""Every public function refuses an argument that it does not have in one line, with the nearest name."""

import inspect
import warnings
from pathlib import Path
from types import FunctionType

import pytest
import torch
from torch import Tensor, nn

import l0prune
from l0prune.support import known_arguments

PUBLIC = {name: value for name in l0prune.__all__ if isinstance(value := getattr(l0prune, name), FunctionType)}
ANY = ("save",)
"""Of which further arguments are written to a file."""


@pytest.mark.parametrize("name", sorted(PUBLIC.keys() - {*ANY}))
def test_public_functions_name_the_nearest_argument(name: str) -> None:
    function = PUBLIC[name]
    for own, one in inspect.signature(function).parameters.items():
        if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY):
            given = {f"{own}s": None}
            more = ("model", "x") if name == "wrap" else ()
            with pytest.raises(l0prune.ConfigError, match=f"^no such argument: {own}s; did you mean '{own}'"):
                function(*more, **given)


def test_others_do_too() -> None:
    for function in (l0prune.cut, l0prune.importances, l0prune.repair, l0prune.rehearse, l0prune.verify):
        with pytest.raises(l0prune.ConfigError, match=r"^no such argument: beside; choose one of "):
            function(beside=1)  # type: ignore[call-arg]
    with pytest.raises(l0prune.ConfigError, match=r"^no such argument: ys; did you mean 'y'"):
        l0prune.write_pareto([], "out", ys="loss")  # type: ignore[call-arg]


@pytest.mark.parametrize("function", [l0prune.wrap, l0prune.prune])
def test_names_of_torch_pruning_are_told(function: FunctionType) -> None:
    for name, own in {"pruning_ratio": "target_sparsity", "ignored_layers": "ignored"}.items():
        with pytest.raises(l0prune.ConfigError, match=rf"{name} \(expected {own}\); torch-pruning's names are those"):
            function(nn.Linear(2, 2), torch.ones(1, 2), **{name: 0.5})


def test_what_python_refuses_besides_is_as_it_was() -> None:
    @known_arguments
    def of(one: int, *, other: int = 0) -> int:
        """Words."""
        return one + other

    assert of(1, other=2) == of(one=1, other=2) == 3
    assert (of.__name__, of.__doc__, [*inspect.signature(of).parameters]) == ("of", "Words.", ["one", "other"])
    for given, named in (((), {}), ((1, 2), {}), ((1,), {"one": 1})):
        with pytest.raises(TypeError):
            of(*given, **named)


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.beside = nn.Linear(4, 16), nn.Linear(16, 4), nn.Linear(16, 16)

    def forward(self, x: Tensor, again: bool = False) -> Tensor:
        hidden = self.up(x).relu()
        return self.down(self.beside(hidden) if again else hidden)


@pytest.mark.parametrize("function", [l0prune.wrap, l0prune.prune])
def test_warnings_name_the_line_of_the_caller(function: FunctionType, tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        function(Branching(), torch.ones(2, 4), target_sparsity=0.3)
    assert [one.filename for one in caught if "never reach" in str(one.message)] == [__file__]
