"""How rules of other packages are called: one that fails, or says what cannot be, costs its operands' units alone."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from l0prune.discovery.traced import Atoms, Block
from l0prune.discovery.tracer import Tracer
from l0prune.support import one_line, output_tensors

Carried = Mapping[int, Atoms | None] | Sequence[Mapping[int, Atoms | None]] | None
"""What the results of an operator or module carry, by dimension; None if the rule has told the tracer itself."""


def guarded(tracer: Tracer, name: str, operands: Any, out: Any, rule: Callable[[], Carried]) -> None:
    """Call a rule, and tell the tracer what it says of its results.

    Args:
        tracer: Holds the atoms.
        name: What the rule is for.
        operands: What holds the tensors that are left alone if the rule fails.
        out: What the operator or module returned.
        rule: Calls the rule.
    """
    before, results = tracer.mark(), output_tensors(out)
    try:
        fault = _carry(tracer, rule(), results) or _made_up(tracer, tracer.said_since(before))
    except Exception as error:
        fault = f"raised {type(error).__name__}: {one_line(error)}"
    # To ask is to read, whether or not the rule has asked.
    for operand in (found := output_tensors(operands)):
        tracer.facts(operand)
    if not fault:
        return
    # What was tied stays tied, where it can be: to tie too much costs reach alone.
    tracer.take_back(before, keep=lambda atoms: not _made_up(tracer, [atoms]))
    for operand in found:
        tracer.pin_all(operand, f"read by {name}, whose rule {fault},")
    for result in results:
        tracer.set(result, [])
    note = f"the rule of {name} {fault}: what it reads is left alone"
    if note not in tracer.trace.notes:
        tracer.trace.notes.append(note)


def _carry(tracer: Tracer, said: Any, results: Sequence[Tensor]) -> str:
    """Hand over what a rule has returned; what is wrong with that, or with what it has set itself."""
    if said is not None:
        each = [said] if isinstance(said, Mapping) else said
        if not isinstance(each, list | tuple) or len(each) != len(results):
            return f"returned {_kind(said)} for {len(results)} result{'s' * (len(results) != 1)}"
        for result, dims in zip(results, each, strict=True):
            if not isinstance(dims, Mapping):
                return f"returned {_kind(dims)} for a result, not units by dimension"
            for dim in dims:
                if type(dim) is not int or not -result.ndim <= dim < result.ndim:
                    return f"returned units for dimension {dim} of a result of shape {tuple(result.shape)}"
            blocks = [Block((dim % result.ndim,), units) for dim, units in dims.items() if units is not None]
            if fault := _misfit(tracer, result, blocks):
                return fault
            tracer.set(result, blocks)
        return ""
    return next((fault for x in results if (fault := _misfit(tracer, x, tracer.carried_by(x)))), "")


def _misfit(tracer: Tracer, tensor: Tensor, blocks: Sequence[Block]) -> str:
    """What is wrong with what a tensor is said to carry, if anything."""
    taken: set[int] = set()
    for dims, atoms in blocks:
        if not isinstance(atoms, np.ndarray) or atoms.dtype.kind != "i":
            return f"returned {_kind(atoms)} for dimension {dims[0]} of a result, not units"
        if not _known(tracer, atoms):
            return f"returned units for dimension {dims[0]} of a result that it has made up"
        extents = tuple(tensor.shape[dim] for dim in dims)
        if atoms.shape != extents:
            lengths = " x ".join(map(str, atoms.shape))
            expected = " x ".join(map(str, extents))
            return f"returned {lengths} units for dimension {dims[0]} of a result, which is {expected} long"
        if not taken.isdisjoint(dims):
            return f"returned units twice for dimension {dims[0]} of a result"
        taken.update(dims)
    return ""


def _made_up(tracer: Tracer, said: Iterable[Any]) -> str:
    """What is wrong with arrays that a rule has given the tracer, if they are no units of its."""
    for atoms in said:
        if not isinstance(atoms, np.ndarray) or atoms.dtype.kind != "i":
            return f"gave the tracer {_kind(atoms)}, not units"
        if not _known(tracer, atoms):
            return "gave the tracer units that it has made up"
    return ""


def _known(tracer: Tracer, atoms: np.ndarray) -> bool:
    return not atoms.size or 0 <= atoms.min() <= atoms.max() < tracer.trace.size


def _kind(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}"
    return f"{len(value)} values" if isinstance(value, list | tuple) else type(value).__name__
