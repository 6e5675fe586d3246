"""One forward pass as a graph: which operator made what of what, inside which call of which module.

`Tracer` follows what stands on dimensions; this follows values alone, for questions about paths between them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from l0prune.support import (
    TorchDispatchMode,
    base_of,
    kept_values,
    output_tensors,
    plain_attention,
    tree_leaves,
)

LEAVES = ("parameter", "outside")
"""Operators of values that are made of no others."""


class Ref(NamedTuple):
    """A value among an operator's arguments."""

    number: int


@dataclass(frozen=True, eq=False)
class Value:
    """What an operator has made; or a parameter, or what came from outside."""

    operator: str
    """Its name without library and overload, or one of `LEAVES`."""
    arguments: tuple[Any, ...]
    """Positional ones: `Ref`s for tensors, and whatever else they are."""
    inputs: tuple[int, ...]
    """Numbers of all values among arguments and keywords."""
    shape: tuple[int, ...]
    call: int
    """Number of the innermost call that was running; -1 outside the model."""
    name: str = ""
    """Of a parameter."""


@dataclass(eq=False)
class Call:
    """One call of a module."""

    path: str
    parent: int
    """Number of the call inside which it was made; -1 for none."""
    first: int
    """The number of the first value made meanwhile."""
    given: int | None
    """The first tensor among its arguments."""
    last: int = -1
    """One more than the number of the last value made meanwhile."""
    made: int | None = None
    """The tensor that it returned, or the first of the tuple."""
    count: int | None = None
    """How many values the tuple had that it returned; None where it returned a tensor."""
    plain: bool = False
    """Whether it returned a tensor, or a tuple that starts with one."""
    others: tuple[int, ...] = ()
    """All further tensors in that tuple."""


@dataclass(eq=False)
class Recording:
    """A forward pass."""

    values: list[Value] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    outputs: frozenset[int] = frozenset()
    users: list[list[int]] = field(default_factory=list)
    """By value, the values made of it that the model's outputs depend on."""
    alive: list[bool] = field(default_factory=list)
    """Whether the outputs depend on a value."""

    def around(self, call: int) -> Iterator[int]:
        """The numbers of a call and of those that it was made in, from the inside to the outside."""
        while call >= 0:
            yield call
            call = self.calls[call].parent

    def returns_one(self, call: Call) -> bool:
        """Whether nothing that a call returns is used afterwards but a first tensor."""
        return call.plain and not any(
            number in self.outputs or any(user >= call.last for user in self.users[number]) for number in call.others
        )

    def finish(self, outputs: Sequence[int]) -> None:
        """Find out what the outputs depend on."""
        self.outputs = frozenset(outputs)
        self.alive = [False] * len(self.values)
        for number in self.outputs:
            self.alive[number] = True
        self.users = [[] for _ in self.values]
        for number in range(len(self.values) - 1, -1, -1):
            if self.alive[number]:
                for given in self.values[number].inputs:
                    self.alive[given] = True
                    self.users[given].append(number)


class _Recorder(TorchDispatchMode):
    """Writes down every operator.

    Args:
        model: Hooks are left on it.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.found = Recording()
        self._numbers: Any = WeakIdKeyDictionary()
        self._running: list[int] = []
        self._names = {id(tensor): name for name, tensor in model.named_parameters()}
        for path, module in model.named_modules():
            self._follow(path, module)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run an operator and write it down."""
        kwargs = kwargs or {}
        operands = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        inputs = tuple(dict.fromkeys(self.number(operand) for operand in operands))
        arguments = tuple(self._argument(value) for value in args)
        out = func(*args, **kwargs)
        results = output_tensors(out)
        if not results:
            return out
        number = self._add(func.overloadpacket.__name__, arguments, inputs, tuple(results[0].shape))
        for result in results:
            self._numbers[result] = number
            base = base_of(result)
            if base is not None and any(result is operand for operand in operands):
                # Written through a view: what the view is of has changed, too.
                self._numbers[base] = self._add("written", (), (self.number(base), number), tuple(base.shape))
        return out

    def number(self, tensor: Tensor) -> int:
        """The number of a tensor as it is now."""
        if tensor not in self._numbers:
            name = self._names.get(id(tensor), "")
            kind = "parameter" if name else "outside"
            self._numbers[tensor] = self._add(kind, (), (), tuple(tensor.shape), name=name)
        return self._numbers[tensor]

    def _argument(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return Ref(self.number(value))
        return tuple(map(self._argument, value)) if isinstance(value, list | tuple) else value

    def _add(self, operator: str, arguments: tuple, inputs: tuple, shape: tuple, *, name: str = "") -> int:
        call = -1 if name else self._running[-1] if self._running else -1
        self.found.values.append(Value(operator, arguments, inputs, shape, call, name))
        return len(self.found.values) - 1

    def _follow(self, path: str, module: nn.Module) -> None:
        def enter(_module: nn.Module, args: tuple, kwargs: dict) -> None:
            given = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
            number = None if given is None else self.number(given)
            parent = self._running[-1] if self._running else -1
            self._running.append(len(self.found.calls))
            self.found.calls.append(Call(path, parent, len(self.found.values), number))

        def leave(_module: nn.Module, _args: object, out: Any) -> None:
            call = self.found.calls[self._running.pop()]
            call.last = len(self.found.values)
            first = out[0] if isinstance(out, tuple) and type(out) is tuple and out else out
            if isinstance(first, Tensor):
                call.made, call.plain = self.number(first), True
                if isinstance(out, tuple):
                    call.count, call.others = len(out), tuple(map(self.number, output_tensors(out[1:])))

        module.register_forward_pre_hook(enter, with_kwargs=True, prepend=True)
        module.register_forward_hook(leave)


@torch.inference_mode(False)
def record(model: nn.Module, observe: Callable[[nn.Module], Any]) -> Recording:
    """Write down a model's forward pass in evaluation mode.

    Args:
        model: A copy that may be spoilt: hooks are left on it.
        observe: Runs a model on example inputs and returns its outputs.
    """
    model.eval()
    recorder = _Recorder(model)
    with plain_attention(), torch.random.fork_rng(), torch.no_grad():
        with recorder:
            outputs = observe(model)
        kept: Mapping[str, Any] = kept_values(model)
        numbers = [value for value in kept.values() if isinstance(value, Tensor) and value.numel() == 1]
        recorder.found.finish([recorder.number(tensor) for tensor in [*output_tensors(outputs), *numbers]])
    return recorder.found
