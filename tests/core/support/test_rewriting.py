"""Classes whose methods keep sizes: what they share with the classes that they stand for, and with their copies."""

from __future__ import annotations

import copy
import copyreg
import inspect
import io
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from l0prune.support import can_write, class_with_sizes, class_without_sizes, kept_sizes, size_name

if TYPE_CHECKING:
    from torch import Tensor

WAYS = ("own", "kept")


def place_of(method: Any) -> tuple[int, int]:
    """Where `x.view(2, 3)` ends in its source."""
    lines = inspect.getsource(method).splitlines()
    return next((n, line.index("x.view(2, 3)") + 12) for n, line in enumerate(lines) if "x.view(2, 3)" in line)


class Plain(nn.Module):
    _texts: ClassVar[dict[str, str]] = {"a": "b"}
    _sizes: ClassVar[list[int]] = [1]

    def forward(self, x: Tensor) -> Any:
        return self.beside(x.view(2, 3))

    def beside(self, x: Any) -> Any:
        return x, self._texts, self._sizes


def sized(kind: type = Plain) -> Any:
    module, place = kind(), place_of(kind.forward)  # type: ignore[attr-defined]
    module.__class__ = class_with_sizes(kind, {"forward": {place: WAYS}})
    setattr(module, size_name(place, 1), 2)
    return module


def test_names_that_a_class_has_are_left_to_it_and_none_is_made_for_a_trial() -> None:
    class Refusing(Plain):
        def __init_subclass__(cls) -> None:
            raise RuntimeError("final")

    assert can_write(Plain, "forward", place_of(Plain.forward), WAYS)
    assert Plain.__subclasses__() == [Refusing]
    assert not can_write(Refusing, "forward", place_of(Plain.forward), WAYS)
    y, texts, sizes = sized()(torch.zeros(4))
    assert (tuple(y.shape), texts, sizes) == ((2, 2), {"a": "b"}, [1])
    kind = type(sized())
    assert class_without_sizes(kind) is Plain is class_without_sizes(Plain)
    assert (kept_sizes(kind), kept_sizes(Plain)) == ({"forward": {place_of(Plain.forward): WAYS}}, {})
    assert not can_write(kind, "forward", place_of(Plain.forward), WAYS)


def test_copies_and_pickles_are_of_the_same_class_in_a_process() -> None:
    module, file = sized(), io.BytesIO()
    known = len(copyreg.dispatch_table)
    torch.save(module, file)
    file.seek(0)
    others = copy.deepcopy([module, module]), copy.deepcopy(copy.deepcopy(module)), torch.load(file, weights_only=False)
    for other in (others[0][0], *others[1:]):
        assert type(other) is type(module)
        assert tuple(other(torch.zeros(4))[0].shape) == (2, 2)
    assert len(copyreg.dispatch_table) == known


def test_threads_make_one_class() -> None:
    class Own(Plain):
        def forward(self, x: Tensor) -> Any:
            return self.beside(x.view(2, 3))

    with ThreadPoolExecutor(4) as pool:
        kinds = {type(module) for module in pool.map(lambda _: sized(Own), range(16))}
    assert len(kinds) == 1
    assert all(kept_sizes(kind) for kind in kinds)


def test_variables_around_a_method_stay_the_same_ones() -> None:
    calls = 0

    class Own(Plain):
        def forward(self, x: Tensor) -> Any:
            y = self.beside(x.view(2, 3))

            def count(more: Unknown) -> int:  # type: ignore[name-defined]  # noqa: F821
                return calls + more

            return y[0], count(1), super().beside

    module = sized(Own)
    calls = 5
    y, counted, _ = module(torch.zeros(4))
    assert (tuple(y.shape), counted) == ((2, 2), 6)
