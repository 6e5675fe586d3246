"""What is known of tensors that come and go."""

import weakref
from typing import Generic, TypeVar

from torch import Tensor

V = TypeVar("V")


class ByTensor(Generic[V]):
    """Values of tensors, which are told apart by identity and not kept alive.

    Every operator of a traced pass is looked up several times: torch's own dictionaries of this kind make an object for
    each look.
    """

    def __init__(self) -> None:
        self._found: dict[int, tuple[weakref.ref[Tensor], V]] = {}
        self._most = 1000

    def __setitem__(self, tensor: Tensor, value: V) -> None:
        self._found[id(tensor)] = weakref.ref(tensor), value
        if len(self._found) > self._most:
            self._found = {key: held for key, held in self._found.items() if held[0]() is not None}
            self._most = 2 * len(self._found) + 1000

    def __bool__(self) -> bool:
        """False where no tensor has a value; there may be tensors left that are gone."""
        return bool(self._found)

    def get(self, tensor: Tensor) -> V | None:
        """The value of a tensor; None where it has none."""
        # Another tensor may have stood there before.
        held = self._found.get(id(tensor))
        return held[1] if held is not None and held[0]() is tensor else None

    def pop(self, tensor: Tensor) -> V | None:
        """The same; it has none from then on."""
        held = self._found.pop(id(tensor), None)
        return held[1] if held is not None and held[0]() is tensor else None
